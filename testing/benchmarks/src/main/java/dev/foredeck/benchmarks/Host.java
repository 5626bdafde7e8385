package dev.foredeck.benchmarks;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/// The machine that is measured on.
final class Host {
  private static final int COMMAND_SECONDS = 120;

  private Host() {}

  /// Cores, processor, kernel, Java.
  static String machine() throws IOException {
    String model =
        Files.readAllLines(Path.of("/proc/cpuinfo")).stream()
            .filter(line -> line.startsWith("model name"))
            .findFirst()
            .map(line -> line.substring(line.indexOf(':') + 1).strip())
            .orElse("unknown processor");
    return Runtime.getRuntime().availableProcessors()
        + " cores of "
        + model
        + ", Linux "
        + System.getProperty("os.version")
        + ", Java "
        + System.getProperty("java.version");
  }

  /// What a command prints, both channels together.
  ///
  /// @throws IOException where it fails, or has not ended after two minutes
  static List<String> command(String... words) throws IOException, InterruptedException {
    Process process = new ProcessBuilder(words).redirectErrorStream(true).start();
    Thread watchdog =
        Thread.ofVirtual()
            .start(() -> {
              try {
                if (!process.waitFor(COMMAND_SECONDS, TimeUnit.SECONDS)) {
                  process.destroyForcibly();
                }
              } catch (InterruptedException _) {
                process.destroyForcibly();
              }
            });
    List<String> lines;
    try (BufferedReader reader = process.inputReader()) {
      lines = reader.lines().toList();
    }
    int exit = process.waitFor();
    watchdog.join();
    if (exit != 0) {
      throw new IOException(String.join(" ", words) + ": " + lines);
    }
    return lines;
  }

  /// Memory of all processes of a control group.
  ///
  /// @param group a part of its path
  static Memory memory(String group) throws IOException {
    List<Memory> each = new ArrayList<>();
    try (Stream<Path> processes = Files.list(Path.of("/proc"))) {
      for (Path process :
          processes.filter(p -> p.getFileName().toString().matches("[0-9]+")).toList()) {
        try {
          if (Files.readString(process.resolve("cgroup")).contains(group)) {
            List<String> lines = Files.readAllLines(process.resolve("smaps_rollup"));
            each.add(new Memory(kilobytes(lines, "Rss:"), kilobytes(lines, "Pss:"), 1));
          }
        } catch (IOException _) {
          // It ended while we looked.
        }
      }
    }
    return each.stream().reduce(new Memory(0, 0, 0), Memory::plus);
  }

  /// @param residentKilobytes shared pages counted in each process
  /// @param proportionalKilobytes shared pages divided among those that have them
  record Memory(long residentKilobytes, long proportionalKilobytes, int processes) {
    Memory plus(Memory other) {
      return new Memory(
          residentKilobytes + other.residentKilobytes,
          proportionalKilobytes + other.proportionalKilobytes,
          processes + other.processes);
    }

    @Override
    public String toString() {
      return String.format(
          Locale.ROOT,
          "%.1f MB resident (%.1f MB proportional)",
          residentKilobytes / 1000.0,
          proportionalKilobytes / 1000.0);
    }
  }

  private static long kilobytes(List<String> lines, String key) {
    return lines.stream()
        .filter(line -> line.startsWith(key))
        .mapToLong(line -> Long.parseLong(line.replaceAll("[^0-9]", "")))
        .sum();
  }

  static void removeTree(Path root) throws IOException {
    try (Stream<Path> tree = Files.walk(root)) {
      for (Path path : tree.sorted(Comparator.reverseOrder()).toList()) {
        Files.delete(path);
      }
    }
  }
}
