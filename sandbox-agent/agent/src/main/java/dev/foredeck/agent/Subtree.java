package dev.foredeck.agent;

import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.Message.FailureCode;
import dev.foredeck.protocol.Message.FileInfo;
import dev.foredeck.protocol.Message.FileKind;
import dev.foredeck.protocol.Message.FileList;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;

/// The files beneath one directory. The workload may change that tree, links included, while it is
/// walked: every path is resolved by the kernel in one step that cannot leave the directory
/// (`openat2` with `RESOLVE_BENEATH`), and every change is made relative to a descriptor that was
/// resolved so. A relative link that stays inside is followed, any other is refused.
///
/// Threads: any; it holds no state but the directory's descriptor.
final class Subtree implements AutoCloseable {
  /// Levels that a recursive removal goes down: each holds a descriptor.
  private static final int REMOVE_DEPTH = 200;

  /// Times that a removal looks at a directory that is being filled meanwhile.
  private static final int REMOVE_PASSES = 16;

  private static final int DIRECTORY_BUFFER_BYTES = 32 * 1024;
  private static final int FILE_BUFFER_BYTES = 64 * 1024;

  /// What one entry takes in a frame besides its path.
  private static final int ENTRY_BYTES = 32;

  private static final int BENEATH = Kernel.RESOLVE_BENEATH | Kernel.RESOLVE_NO_MAGICLINKS;
  private static final AtomicLong UPLOADS = new AtomicLong();

  private final int root;

  private Subtree(int root) {
    this.root = root;
  }

  static Subtree at(String directory) throws KernelException {
    return new Subtree(
        Kernel.open(Kernel.AT_FDCWD, directory, Kernel.O_PATH | Kernel.O_DIRECTORY, 0, 0));
  }

  @Override
  public void close() {
    Kernel.close(root);
  }

  /// A path as its parts: without `.` and doubled slashes, never with `..`.
  private static List<String> parts(String path) throws FailureException {
    if (path.startsWith("/")) {
      throw new FailureException(
          FailureCode.OUTSIDE_WORKSPACE, "not relative to the workspace: " + path);
    }
    List<String> parts = new ArrayList<>();
    for (String part : path.split("/")) {
      if (part.equals("..")) {
        throw new FailureException(FailureCode.OUTSIDE_WORKSPACE, "a path with ..: " + path);
      }
      if (!part.isEmpty() && !part.equals(".")) {
        parts.add(part);
      }
    }
    return parts;
  }

  /// The directory that holds the last part of a path, opened, and that part's name.
  private record Place(int directory, String name) implements AutoCloseable {
    @Override
    public void close() {
      Kernel.close(directory);
    }
  }

  /// @param create directories that are missing on the way are made
  private Place place(String path, boolean create) throws FailureException {
    List<String> parts = parts(path);
    if (parts.isEmpty()) {
      throw new FailureException(FailureCode.BAD_REQUEST, "this would be the workspace itself");
    }
    String parent = String.join("/", parts.subList(0, parts.size() - 1));
    if (create) {
      for (int i = 1; i < parts.size(); i++) {
        makeDirectory(String.join("/", parts.subList(0, i - 1)), parts.get(i - 1), path);
      }
    }
    return new Place(open(parent, Kernel.O_PATH | Kernel.O_DIRECTORY, path), parts.getLast());
  }

  private void makeDirectory(String parent, String name, String path) throws FailureException {
    int directory = open(parent, Kernel.O_PATH | Kernel.O_DIRECTORY, path);
    try {
      Kernel.makeDirectory(directory, name, 0755);
    } catch (KernelException e) {
      // Whatever exists there is judged when it is opened.
      if (e.errno() != Errno.EEXIST) {
        throw failure(e, path);
      }
    } finally {
      Kernel.close(directory);
    }
  }

  /// @param path of what is opened; empty is the root
  /// @param shown what the control plane asked for
  private int open(String path, int flags, String shown) throws FailureException {
    try {
      return Kernel.open(root, path.isEmpty() ? "." : path, flags, 0, BENEATH);
    } catch (KernelException e) {
      throw failure(e, shown);
    }
  }

  private int open(String path, int flags) throws FailureException {
    return open(String.join("/", parts(path)), flags, path);
  }

  private static FailureException failure(KernelException e, String path) {
    FailureCode code =
        switch (e.errno()) {
          case Errno.EXDEV, Errno.ELOOP -> FailureCode.OUTSIDE_WORKSPACE;
          case Errno.ENOENT -> FailureCode.NOT_FOUND;
          case Errno.ENOTDIR -> FailureCode.NOT_A_DIRECTORY;
          case Errno.EISDIR, Errno.ENXIO -> FailureCode.NOT_A_FILE;
          case Errno.ENOTEMPTY, Errno.EEXIST -> FailureCode.NOT_EMPTY;
          case Errno.ENOSPC, Errno.EDQUOT -> FailureCode.DISK_FULL;
          case Errno.EMFILE, Errno.ENOMEM -> FailureCode.LIMIT;
          case Errno.ENAMETOOLONG, Errno.EINVAL -> FailureCode.BAD_REQUEST;
          default -> FailureCode.IO;
        };
    return new FailureException(code, e.getMessage() + ": " + path, e);
  }

  private static FileInfo describe(String path, Kernel.Status status) {
    FileKind kind;
    if (status.isFile()) {
      kind = FileKind.FILE;
    } else if (status.isDirectory()) {
      kind = FileKind.DIRECTORY;
    } else if (status.isLink()) {
      kind = FileKind.LINK;
    } else {
      kind = FileKind.OTHER;
    }
    return new FileInfo(
        path, kind, Math.max(0, status.sizeBytes()), status.mode(), status.modifiedMillis());
  }

  FileInfo status(String path) throws FailureException {
    List<String> parts = parts(path);
    if (parts.isEmpty()) {
      int directory = open("", Kernel.O_PATH | Kernel.O_DIRECTORY, path);
      try {
        return describe("", Kernel.status(directory, ""));
      } catch (KernelException e) {
        throw failure(e, path);
      } finally {
        Kernel.close(directory);
      }
    }
    try (Place place = place(path, false)) {
      return describe(String.join("/", parts), Kernel.status(place.directory(), place.name()));
    } catch (KernelException e) {
      throw failure(e, path);
    }
  }

  /// A file that is read from an offset on.
  static final class Reading implements AutoCloseable {
    private final int descriptor;
    private final FileInfo file;
    private final Arena arena = Arena.ofShared();
    private final MemorySegment buffer = arena.allocate(FILE_BUFFER_BYTES);
    private long offset;

    private Reading(int descriptor, FileInfo file, long offset) {
      this.descriptor = descriptor;
      this.file = file;
      this.offset = offset;
    }

    FileInfo file() {
      return file;
    }

    /// @return the next bytes, none at the end
    byte[] next(long max) throws FailureException {
      try {
        int wanted = (int) Math.min(max, FILE_BUFFER_BYTES);
        int read = wanted == 0 ? 0 : Kernel.read(descriptor, buffer, wanted, offset);
        offset += read;
        return buffer.asSlice(0, read).toArray(ValueLayout.JAVA_BYTE);
      } catch (KernelException e) {
        throw failure(e, file.path());
      }
    }

    @Override
    public void close() {
      Kernel.close(descriptor);
      arena.close();
    }
  }

  /// Opens a regular file; devices, pipes and sockets are refused without waiting for their other
  /// end.
  Reading read(String path, long offset) throws FailureException {
    int descriptor = open(path, Kernel.O_NONBLOCK | Kernel.O_NOCTTY);
    try {
      Kernel.Status status = Kernel.status(descriptor, "");
      if (!status.isFile()) {
        throw new FailureException(FailureCode.NOT_A_FILE, "not a regular file: " + path);
      }
      Reading reading =
          new Reading(descriptor, describe(String.join("/", parts(path)), status), offset);
      descriptor = -1;
      return reading;
    } catch (KernelException e) {
      throw failure(e, path);
    } finally {
      if (descriptor >= 0) {
        Kernel.close(descriptor);
      }
    }
  }

  /// A file that is being written beside its place, and takes it at the end. Closed before that, it
  /// leaves nothing.
  static final class Writing implements AutoCloseable {
    private final Place place;
    private final String path;
    private final String temporary;
    private final int mode;
    private final int descriptor;
    private long bytes;
    private boolean done;

    private Writing(Place place, String path, String temporary, int mode, int descriptor) {
      this.place = place;
      this.path = path;
      this.temporary = temporary;
      this.mode = mode;
      this.descriptor = descriptor;
    }

    void append(byte[] chunk) throws FailureException {
      try {
        Kernel.writeAll(descriptor, chunk);
        bytes += chunk.length;
      } catch (KernelException e) {
        throw failure(e, path);
      }
    }

    long bytes() {
      return bytes;
    }

    FileInfo finish() throws FailureException {
      try {
        Kernel.setMode(descriptor, mode);
        Kernel.rename(place.directory(), temporary, place.directory(), place.name());
        done = true;
        return describe(path, Kernel.status(descriptor, ""));
      } catch (KernelException e) {
        throw failure(e, path);
      }
    }

    @Override
    public void close() {
      if (!done) {
        try {
          Kernel.remove(place.directory(), temporary, false);
        } catch (KernelException e) {
          if (e.errno() != Errno.ENOENT) {
            Log.warn("cannot remove an unfinished upload", e);
          }
        }
      }
      Kernel.close(descriptor);
      place.close();
    }
  }

  Writing write(String path, int mode) throws FailureException {
    Place place = place(path, true);
    try {
      String temporary = ".foredeck-upload-" + UPLOADS.incrementAndGet() + "-" + System.nanoTime();
      int flags = Kernel.O_WRONLY | Kernel.O_CREAT | Kernel.O_EXCL;
      int descriptor = Kernel.open(place.directory(), temporary, flags, 0600, BENEATH);
      Writing writing =
          new Writing(place, String.join("/", parts(path)), temporary, mode, descriptor);
      place = null;
      return writing;
    } catch (KernelException e) {
      throw failure(e, path);
    } finally {
      if (place != null) {
        place.close();
      }
    }
  }

  /// Lists a directory and, down to `depth`, those in it, ordered by path.
  FileList list(String path, int depth) throws FailureException {
    int directory = open(path, Kernel.O_DIRECTORY);
    String prefix = String.join("/", parts(path));
    try (Arena arena = Arena.ofConfined()) {
      Listing listing = new Listing(arena.allocate(DIRECTORY_BUFFER_BYTES, 8));
      listing.add(directory, prefix, depth);
      listing.entries.sort(Comparator.comparing(FileInfo::path));
      return new FileList(listing.entries, listing.truncated);
    } catch (KernelException e) {
      throw failure(e, path);
    } finally {
      Kernel.close(directory);
    }
  }

  private static final class Listing {
    private final MemorySegment buffer;
    private final List<FileInfo> entries = new ArrayList<>();
    private long frameBytes;
    private boolean truncated;

    Listing(MemorySegment buffer) {
      this.buffer = buffer;
    }

    void add(int directory, String prefix, int depth) throws KernelException {
      List<String> names = new ArrayList<>();
      // One more than fits says whether there are more.
      while (names.size() <= Limits.LIST_ENTRIES
          && Kernel.readDirectory(directory, buffer, names) > 0) {
        // Reads on.
      }
      names.sort(Comparator.naturalOrder());
      for (String name : names) {
        String path = prefix.isEmpty() ? name : prefix + "/" + name;
        Kernel.Status status;
        try {
          status = Kernel.status(directory, name);
        } catch (KernelException e) {
          if (e.errno() == Errno.ENOENT) {
            // Removed meanwhile.
            continue;
          }
          throw e;
        }
        int pathBytes = path.getBytes(StandardCharsets.UTF_8).length;
        frameBytes += pathBytes + ENTRY_BYTES;
        if (entries.size() == Limits.LIST_ENTRIES
            || pathBytes > Limits.PATH_BYTES
            || frameBytes > Limits.FRAME_BYTES - ENTRY_BYTES) {
          truncated = true;
          return;
        }
        entries.add(describe(path, status));
        if (status.isDirectory() && depth > 1) {
          addBelow(directory, name, path, depth - 1);
          if (truncated) {
            return;
          }
        }
      }
    }

    private void addBelow(int directory, String name, String path, int depth)
        throws KernelException {
      int below;
      try {
        below = openDirectory(directory, name);
      } catch (KernelException e) {
        if (e.errno() == Errno.EMFILE || e.errno() == Errno.ENOMEM) {
          throw e;
        }
        // Gone, another thing by now, or not readable: its entry is what can be said.
        return;
      }
      try {
        add(below, path, depth);
      } finally {
        Kernel.close(below);
      }
    }
  }

  private static int openDirectory(int directory, String name) throws KernelException {
    return Kernel.open(
        directory,
        name,
        Kernel.O_DIRECTORY | Kernel.O_NOFOLLOW,
        0,
        BENEATH | Kernel.RESOLVE_NO_SYMLINKS);
  }

  /// Removes a file, a link (not what it leads to) or a directory.
  void remove(String path, boolean recursive) throws FailureException {
    try (Place place = place(path, false)) {
      if (!Kernel.status(place.directory(), place.name()).isDirectory()) {
        Kernel.remove(place.directory(), place.name(), false);
        return;
      }
      try {
        Kernel.remove(place.directory(), place.name(), true);
      } catch (KernelException e) {
        if (!recursive || (e.errno() != Errno.ENOTEMPTY && e.errno() != Errno.EEXIST)) {
          throw e;
        }
        removeTree(place.directory(), place.name(), path, REMOVE_DEPTH);
      }
    } catch (KernelException e) {
      throw failure(e, path);
    }
  }

  private static void removeTree(int parent, String name, String path, int depth)
      throws KernelException, FailureException {
    if (depth == 0) {
      throw new FailureException(
          FailureCode.LIMIT, "deeper than " + REMOVE_DEPTH + " directories: " + path);
    }
    int directory = openDirectory(parent, name);
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment buffer = arena.allocate(DIRECTORY_BUFFER_BYTES, 8);
      for (int pass = 0; pass < REMOVE_PASSES; pass++) {
        boolean empty = true;
        List<String> names = new ArrayList<>();
        while (Kernel.readDirectory(directory, buffer, names) > 0) {
          for (String entry : names) {
            empty = false;
            removeEntry(directory, entry, path, depth);
          }
          names.clear();
        }
        if (empty) {
          break;
        }
        Kernel.rewind(directory);
      }
    } finally {
      Kernel.close(directory);
    }
    Kernel.remove(parent, name, true);
  }

  private static void removeEntry(int directory, String name, String path, int depth)
      throws KernelException, FailureException {
    try {
      if (Kernel.status(directory, name).isDirectory()) {
        removeTree(directory, name, path, depth - 1);
      } else {
        Kernel.remove(directory, name, false);
      }
    } catch (KernelException e) {
      // Removed meanwhile is what was wanted.
      if (e.errno() != Errno.ENOENT) {
        throw e;
      }
    }
  }

  void move(String from, String to) throws FailureException {
    try (Place source = place(from, false);
        Place target = place(to, false)) {
      try {
        Kernel.rename(source.directory(), source.name(), target.directory(), target.name());
      } catch (KernelException e) {
        if (e.errno() == Errno.EXDEV) {
          throw new FailureException(FailureCode.IO, "on another file system: " + to, e);
        }
        throw failure(e, from + " -> " + to);
      }
    }
  }

  /// Makes a directory that only this user can enter, which must not exist yet.
  void makePrivateDirectory(String name) throws KernelException {
    Kernel.makeDirectory(root, name, 0700);
  }
}
