package dev.foredeck.driver.host;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/// What any driver needs of its host: one sentence for each thing that is not there.
public final class HostNeeds {
  private static final Map<String, String> PROGRAMS =
      new TreeMap<>(
          Map.of(
              "mkfs.ext4", "e2fsprogs", "mount", "mount", "umount", "mount", "losetup", "mount"));

  private HostNeeds() {}

  /// @param driver for a person, as `local`
  public static List<String> missing(String driver, Path agentBundle) throws IOException {
    List<String> findings = new ArrayList<>();
    if (!Integer.valueOf(0).equals(Files.getAttribute(Path.of("/proc/self"), "unix:uid"))) {
      return List.of("The " + driver + " driver needs root: start Foredeck with sudo.");
    }
    PROGRAMS.forEach((program, owner) -> {
      if (!isInstalled(program)) {
        findings.add(
            program
                + " is missing: install the package "
                + owner
                + " (apt-get install "
                + owner
                + ").");
      }
    });
    if (!Files.exists(Path.of("/dev/loop-control"))) {
      findings.add("There are no loop devices: load the module (modprobe loop).");
    }
    if (!Files.isReadable(agentBundle.resolve("argv"))) {
      findings.add(
          "The agent's bundle is missing from "
              + agentBundle
              + ": build it (sandbox-agent/agent/bundle.sh "
              + agentBundle
              + ").");
    }
    return findings;
  }

  public static boolean isInstalled(String program) {
    if (program.startsWith("/")) {
      return Files.isExecutable(Path.of(program));
    }
    for (String folder : Command.PATH.split(":")) {
      if (Files.isExecutable(Path.of(folder, program))) {
        return true;
      }
    }
    return false;
  }

  /// Whether anything can be swapped out here.
  public static boolean swaps() {
    return KernelTables.readIfPresent(Path.of("/proc/swaps")).orElse("").lines().count() > 1;
  }
}
