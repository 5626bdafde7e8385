package dev.foredeck.driver.host;

import dev.foredeck.core.driver.DriverException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.OptionalLong;

/// What the kernel says of mounts, loop devices and processes. Reads only.
public final class KernelTables {
  private KernelTables() {}

  /// @param root what of the file system is mounted, as `/`
  /// @param superOptions of the file system, as `rw,memory` for a cgroup v1 hierarchy
  public record Mount(String root, Path point, String type, String superOptions) {}

  /// @param backingFile what the device shows, which may be deleted by now
  public record Loop(String device, Path backingFile) {}

  public static List<Mount> mounts() throws IOException {
    List<Mount> mounts = new ArrayList<>();
    for (String line : read(Path.of("/proc/self/mountinfo")).lines().toList()) {
      parseMount(line).ifPresent(mounts::add);
    }
    return mounts;
  }

  /// `36 35 98:0 /root /point options optional... - type source superOptions`.
  public static Optional<Mount> parseMount(String line) {
    int separator = line.indexOf(" - ");
    if (separator < 0) {
      return Optional.empty();
    }
    String[] left = line.substring(0, separator).split(" ");
    String[] right = line.substring(separator + 3).split(" ");
    if (left.length < 5 || right.length < 3) {
      return Optional.empty();
    }
    return Optional.of(
        new Mount(unescape(left[3]), Path.of(unescape(left[4])), right[0], right[2]));
  }

  public static List<Loop> loops() throws IOException {
    List<Loop> loops = new ArrayList<>();
    Path block = Path.of("/sys/block");
    if (!Files.isDirectory(block)) {
      return loops;
    }
    try (DirectoryStream<Path> devices = Files.newDirectoryStream(block, "loop*")) {
      for (Path device : devices) {
        readIfPresent(device.resolve("loop/backing_file"))
            .map(String::strip)
            .filter(name -> !name.isEmpty())
            .ifPresent(name ->
                loops.add(
                    new Loop(
                        "/dev/" + device.getFileName(),
                        Path.of(
                            name.endsWith(" (deleted)")
                                ? name.substring(0, name.length() - " (deleted)".length())
                                : name))));
      }
    }
    return loops;
  }

  public static String bootId() throws IOException {
    return read(Path.of("/proc/sys/kernel/random/boot_id")).strip();
  }

  /// When the process started, in clock ticks since boot; empty when there is none or only a zombie
  /// is left.
  public static OptionalLong startTicks(long pid) {
    Optional<String> stat = readIfPresent(Path.of("/proc", Long.toString(pid), "stat"));
    if (stat.isEmpty()) {
      return OptionalLong.empty();
    }
    return parseStartTicks(stat.get());
  }

  /// `pid (name, which may hold anything) state ppid ...`: the start time is field 22.
  public static OptionalLong parseStartTicks(String stat) {
    String[] fields = stat.substring(stat.lastIndexOf(')') + 1).strip().split(" ");
    if (fields.length < 20 || fields[0].equals("Z") || fields[0].equals("X")) {
      return OptionalLong.empty();
    }
    return OptionalLong.of(Long.parseLong(fields[19]));
  }

  /// Processes of the host's root whose command line names `needle` as a whole word or as the
  /// beginning of a path: programs that a control plane which died had started.
  public static List<Long> rootProcessesNaming(Path needle) throws IOException {
    List<Long> found = new ArrayList<>();
    try (DirectoryStream<Path> processes = Files.newDirectoryStream(Path.of("/proc"), "[1-9]*")) {
      for (Path process : processes) {
        Optional<String> commandLine = readIfPresent(process.resolve("cmdline"));
        if (commandLine.isPresent()
            && names(commandLine.get(), needle)
            && uid(process).orElse(-1) == 0) {
          found.add(Long.parseLong(process.getFileName().toString()));
        }
      }
    }
    return found;
  }

  /// Ends them: a program that a dead control plane left at work would make again what is removed.
  public static void endRootProcessesNaming(Path needle, Deadline deadline)
      throws IOException, DriverException.Failed {
    if (!Files.exists(needle)) {
      return;
    }
    while (true) {
      List<Long> strays = rootProcessesNaming(needle);
      if (strays.isEmpty()) {
        return;
      }
      strays.forEach(pid -> ProcessHandle.of(pid).ifPresent(ProcessHandle::destroyForcibly));
      deadline.pause("end programs at work in " + needle);
    }
  }

  private static boolean names(String commandLine, Path needle) {
    for (String word : commandLine.split("\0")) {
      if (word.startsWith("/") && Path.of(word).startsWith(needle)) {
        return true;
      }
    }
    return false;
  }

  private static OptionalLong uid(Path process) {
    for (String line : readIfPresent(process.resolve("status")).orElse("").lines().toList()) {
      if (line.startsWith("Uid:")) {
        return OptionalLong.of(Long.parseLong(line.split("\\s+")[1]));
      }
    }
    return OptionalLong.empty();
  }

  public static Optional<String> readIfPresent(Path file) {
    try {
      return Optional.of(read(file));
    } catch (IOException _) {
      // Processes and devices come and go while we look: one that is gone is not there.
      return Optional.empty();
    }
  }

  private static String read(Path file) throws IOException {
    return new String(Files.readAllBytes(file), StandardCharsets.ISO_8859_1);
  }

  /// mountinfo writes space, tab, newline and backslash as three octal digits.
  private static String unescape(String text) {
    StringBuilder plain = new StringBuilder(text.length());
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      if (c == '\\' && i + 3 < text.length()) {
        plain.append((char) Integer.parseInt(text.substring(i + 1, i + 4), 8));
        i += 3;
      } else {
        plain.append(c);
      }
    }
    return plain.toString();
  }
}
