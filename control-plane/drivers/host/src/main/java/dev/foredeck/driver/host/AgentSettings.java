package dev.foredeck.driver.host;

import dev.foredeck.core.driver.LaunchSpec;
import java.nio.file.Path;
import java.util.List;

/// What an agent is started with, and where it finds what is its.
public final class AgentSettings {
  /// Where the agent's bundle is mounted.
  public static final String BUNDLE = "/opt/foredeck/agent";

  /// Where the folder with the sandbox's sockets is mounted.
  public static final String SOCKETS = "/run/foredeck";

  private static final long OPEN_FILES = 16_384;

  private AgentSettings() {}

  /// As `K=V`.
  public static List<String> environment(LaunchSpec spec) {
    return List.of(
        "PATH=" + Command.PATH,
        "HOME=" + WritablePlaces.WORKSPACE,
        "LANG=C.UTF-8",
        "FOREDECK_SOCKET=" + SOCKETS + "/agent.sock",
        "FOREDECK_EGRESS_SOCKET=" + SOCKETS + "/egress.sock",
        "FOREDECK_TOKEN=" + spec.token(),
        "FOREDECK_WORKSPACE=" + WritablePlaces.WORKSPACE,
        "FOREDECK_PIDS=" + spec.resources().pids());
  }

  /// How many files a sandbox's processes may open each: what this process may open at most is the
  /// most that it can give.
  public static long openFiles() {
    String limits = KernelTables.readIfPresent(Path.of("/proc/self/limits")).orElse("");
    for (String line : limits.lines().toList()) {
      if (line.startsWith("Max open files")) {
        String hard = line.split("\\s{2,}")[2];
        return hard.equals("unlimited") ? OPEN_FILES : Math.min(OPEN_FILES, Long.parseLong(hard));
      }
    }
    return 1024;
  }
}
