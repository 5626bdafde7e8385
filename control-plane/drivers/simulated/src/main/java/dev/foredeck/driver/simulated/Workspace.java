package dev.foredeck.driver.simulated;

import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.Message.FailureCode;
import dev.foredeck.protocol.Message.FileInfo;
import dev.foredeck.protocol.Message.FileKind;
import dev.foredeck.protocol.Message.FileList;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.NavigableMap;
import java.util.TreeMap;

/// A file system in memory: folders and files below one root, no links, with a limit on its bytes.
/// All state is guarded by `this`.
final class Workspace {
  private static final byte[] EMPTY = new byte[0];

  /// Bytes that a folder or a file costs beside its contents, so that empty ones are not free.
  private static final long ENTRY_BYTES = 256;

  private record Entry(FileKind kind, byte[] bytes, int mode, long modifiedMillis) {
    FileInfo describe(String path) {
      return new FileInfo(path, kind, bytes.length, mode, modifiedMillis);
    }

    boolean isFolder() {
      return kind == FileKind.DIRECTORY;
    }
  }

  private final NavigableMap<String, Entry> entries = new TreeMap<>();
  private final long maxBytes;
  private final Pace pace;
  private long usedBytes;

  Workspace(long maxBytes, Pace pace) {
    this.maxBytes = maxBytes;
    this.pace = pace;
    entries.put("", new Entry(FileKind.DIRECTORY, EMPTY, 0755, pace.millis()));
  }

  /// Resolves a path without leaving the workspace.
  private static String resolve(String path) throws AgentFailure {
    List<String> names = new ArrayList<>();
    for (String name : path.split("/", -1)) {
      if (path.startsWith("/") || path.indexOf('\0') >= 0) {
        throw outside(path);
      }
      if (name.equals("..")) {
        if (names.isEmpty()) {
          throw outside(path);
        }
        names.removeLast();
      } else if (!name.isEmpty() && !name.equals(".")) {
        names.add(name);
      }
    }
    return String.join("/", names);
  }

  private static AgentFailure outside(String path) {
    return new AgentFailure(
        FailureCode.OUTSIDE_WORKSPACE, "the path " + path + " leaves the workspace");
  }

  private Entry entry(String resolved) throws AgentFailure {
    Entry entry = entries.get(resolved);
    if (entry == null) {
      throw new AgentFailure(FailureCode.NOT_FOUND, "there is no " + resolved);
    }
    return entry;
  }

  synchronized boolean isFolder(String path) {
    try {
      return entry(resolve(path)).isFolder();
    } catch (AgentFailure _) {
      return false;
    }
  }

  synchronized FileInfo stat(String path) throws AgentFailure {
    String resolved = resolve(path);
    return entry(resolved).describe(resolved);
  }

  synchronized byte[] read(String path) throws AgentFailure {
    Entry entry = entry(resolve(path));
    if (entry.isFolder()) {
      throw new AgentFailure(FailureCode.NOT_A_FILE, path + " is a directory");
    }
    return entry.bytes();
  }

  synchronized FileInfo write(String path, int mode, byte[] bytes) throws AgentFailure {
    String resolved = resolve(path);
    Entry before = entries.get(resolved);
    if (before != null && before.isFolder()) {
      throw new AgentFailure(FailureCode.NOT_A_FILE, path + " is a directory");
    }
    long grows = bytes.length + ENTRY_BYTES - (before == null ? 0 : size(before));
    if (usedBytes + grows > maxBytes) {
      throw new AgentFailure(FailureCode.DISK_FULL, "no space left in the workspace");
    }
    makeParents(resolved);
    Entry entry = new Entry(FileKind.FILE, bytes, mode, pace.millis());
    entries.put(resolved, entry);
    usedBytes += grows;
    return entry.describe(resolved);
  }

  /// Refuses an upload before all of it is in memory.
  synchronized void checkFits(long bytes) throws AgentFailure {
    if (bytes > maxBytes) {
      throw new AgentFailure(FailureCode.DISK_FULL, "no space left in the workspace");
    }
  }

  synchronized void append(String path, byte[] bytes) throws AgentFailure {
    byte[] before = EMPTY;
    if (entries.containsKey(resolve(path))) {
      before = read(path);
    }
    byte[] all = Arrays.copyOf(before, before.length + bytes.length);
    System.arraycopy(bytes, 0, all, before.length, bytes.length);
    write(path, 0644, all);
  }

  synchronized FileList list(String path, int depth) throws AgentFailure {
    String resolved = resolve(path);
    if (!entry(resolved).isFolder()) {
      throw new AgentFailure(FailureCode.NOT_A_DIRECTORY, path + " is not a directory");
    }
    List<FileInfo> found = new ArrayList<>();
    for (var below : below(resolved).entrySet()) {
      String relative =
          resolved.isEmpty() ? below.getKey() : below.getKey().substring(resolved.length() + 1);
      if (relative.chars().filter(c -> c == '/').count() < depth) {
        if (found.size() == Limits.LIST_ENTRIES) {
          return new FileList(found, true);
        }
        found.add(below.getValue().describe(below.getKey()));
      }
    }
    return new FileList(found, false);
  }

  synchronized void remove(String path, boolean recursive) throws AgentFailure {
    String resolved = resolve(path);
    Entry entry = entry(resolved);
    if (resolved.isEmpty()) {
      throw new AgentFailure(FailureCode.BAD_REQUEST, "the workspace itself stays");
    }
    NavigableMap<String, Entry> below = below(resolved);
    if (!below.isEmpty() && !recursive) {
      throw new AgentFailure(FailureCode.NOT_EMPTY, path + " is not empty");
    }
    for (Entry child : below.values()) {
      usedBytes -= size(child);
    }
    below.clear();
    entries.remove(resolved);
    usedBytes -= size(entry);
  }

  synchronized void move(String from, String to) throws AgentFailure {
    String source = resolve(from);
    String target = resolve(to);
    Entry entry = entry(source);
    Entry replaced = entries.get(target);
    if (source.isEmpty() || target.isEmpty() || target.startsWith(source + "/")) {
      throw new AgentFailure(FailureCode.BAD_REQUEST, "cannot move " + from + " to " + to);
    }
    if (source.equals(target)) {
      return;
    }
    if (replaced != null && (replaced.isFolder() || entry.isFolder())) {
      throw new AgentFailure(FailureCode.NOT_A_FILE, to + " is there already");
    }
    makeParents(target);
    if (replaced != null) {
      usedBytes -= size(replaced);
    }
    NavigableMap<String, Entry> below = below(source);
    NavigableMap<String, Entry> moved = new TreeMap<>();
    below.forEach((path, child) -> moved.put(target + path.substring(source.length()), child));
    below.clear();
    entries.remove(source);
    entries.put(target, entry);
    entries.putAll(moved);
  }

  /// Everything beneath a folder, as a view.
  private NavigableMap<String, Entry> below(String folder) {
    return folder.isEmpty()
        ? entries.tailMap("", false)
        : entries.subMap(folder + "/", true, folder + "0", false);
  }

  private void makeParents(String resolved) throws AgentFailure {
    for (int slash = resolved.indexOf('/'); slash >= 0; slash = resolved.indexOf('/', slash + 1)) {
      String folder = resolved.substring(0, slash);
      Entry existing = entries.get(folder);
      if (existing == null) {
        if (usedBytes + ENTRY_BYTES > maxBytes) {
          throw new AgentFailure(FailureCode.DISK_FULL, "no space left in the workspace");
        }
        entries.put(folder, new Entry(FileKind.DIRECTORY, EMPTY, 0755, pace.millis()));
        usedBytes += ENTRY_BYTES;
      } else if (!existing.isFolder()) {
        throw new AgentFailure(FailureCode.NOT_A_DIRECTORY, folder + " is not a directory");
      }
    }
  }

  private static long size(Entry entry) {
    return entry.bytes().length + ENTRY_BYTES;
  }
}
