package dev.foredeck.store.embedded;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;

/// A server process, as its `postmaster.pid` and `/proc` say.
///
/// @param pid of the process
/// @param startTicks when it started, in clock ticks since boot: with the pid it names a process
///   for good
/// @param port it listens on
/// @param ready whether it takes connections; else it starts, recovers or stops
record Postmaster(long pid, long startTicks, int port, boolean ready) {
  /// `postmaster.pid` holds whole seconds by a clock that may be set; a reused pid within this time
  /// that is a PostgreSQL of the same folder is no other process.
  private static final long START_TOLERANCE_SECONDS = 60;

  private static final long TICKS_PER_SECOND = 100;

  /// The live server of a data folder; empty where the file is stale or not there.
  static Optional<Postmaster> find(Path cluster) throws IOException {
    List<String> lines;
    try {
      lines = Files.readAllLines(cluster.resolve("postmaster.pid"), StandardCharsets.UTF_8);
    } catch (NoSuchFileException _) {
      return Optional.empty();
    }
    // pid, data folder, start time, port, socket folder, address, shared memory, status.
    if (lines.size() < 4 || !lines.get(1).equals(cluster.toString())) {
      return Optional.empty();
    }
    boolean ready = lines.size() >= 8 && lines.get(7).strip().equals("ready");
    try {
      long pid = Long.parseLong(lines.getFirst().strip());
      long startSeconds = Long.parseLong(lines.get(2).strip());
      int port = Integer.parseInt(lines.get(3).strip());
      Optional<Stat> stat = Stat.of(pid);
      if (stat.isEmpty() || !belongsTo(pid, stat.get(), cluster)) {
        return Optional.empty();
      }
      long started = bootSeconds() + stat.get().startTicks() / TICKS_PER_SECOND;
      if (Math.abs(started - startSeconds) > START_TOLERANCE_SECONDS) {
        return Optional.empty();
      }
      return Optional.of(new Postmaster(pid, stat.get().startTicks(), port, ready));
    } catch (NumberFormatException _) {
      return Optional.empty();
    }
  }

  boolean alive() {
    return Stat.of(pid).filter(stat -> stat.startTicks() == startTicks && stat.lives()).isPresent();
  }

  /// Processes of a data folder, children of a dead server included.
  static List<Long> processesOf(Path cluster) throws IOException {
    List<Long> found = new ArrayList<>();
    try (Stream<Path> entries = Files.list(Path.of("/proc"))) {
      for (Path entry : (Iterable<Path>) entries::iterator) {
        String name = String.valueOf(entry.getFileName());
        if (!name.chars().allMatch(Character::isDigit)) {
          continue;
        }
        long pid = Long.parseLong(name);
        Optional<Stat> stat = Stat.of(pid);
        if (stat.isPresent() && belongsTo(pid, stat.get(), cluster)) {
          found.add(pid);
        }
      }
    }
    return found;
  }

  /// PostgreSQL's processes work in their data folder.
  private static boolean belongsTo(long pid, Stat stat, Path cluster) {
    if (!stat.lives() || !stat.name().equals("postgres")) {
      return false;
    }
    try {
      return Files.isSameFile(Path.of("/proc/" + pid + "/cwd"), cluster);
    } catch (IOException _) {
      return false;
    }
  }

  private static long bootSeconds() throws IOException {
    try (Stream<String> lines = Files.lines(Path.of("/proc/stat"), StandardCharsets.UTF_8)) {
      return lines
          .filter(line -> line.startsWith("btime "))
          .findFirst()
          .map(line -> Long.parseLong(line.substring(6).strip()))
          .orElseThrow(() -> new IOException("/proc/stat has no btime"));
    }
  }

  /// `/proc/<pid>/stat`.
  private record Stat(String name, char state, long startTicks) {
    static Optional<Stat> of(long pid) {
      String line;
      try {
        line = Files.readString(Path.of("/proc/" + pid + "/stat"), StandardCharsets.ISO_8859_1);
      } catch (IOException _) {
        return Optional.empty();
      }
      int open = line.indexOf('(');
      int close = line.lastIndexOf(')');
      if (open < 0 || close < open) {
        return Optional.empty();
      }
      String[] rest = line.substring(close + 2).split(" ", -1);
      return rest.length < 20
          ? Optional.empty()
          : Optional.of(
              new Stat(
                  line.substring(open + 1, close), rest[0].charAt(0), Long.parseLong(rest[19])));
    }

    boolean lives() {
      return state != 'Z' && state != 'X';
    }
  }
}
