package dev.foredeck.agent;

import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;

/// What the driver tells the agent, by environment.
///
/// @param controlSocket `FOREDECK_SOCKET`: the control plane's unix socket, dialled by the agent
/// @param token `FOREDECK_TOKEN`: proves to the control plane which sandbox dials
/// @param workspace `FOREDECK_WORKSPACE`: the folder whose files the agent serves
/// @param egressSocket `FOREDECK_EGRESS_SOCKET`: the egress gateway's unix socket; absent: no
///   bridge
/// @param bridgePort `FOREDECK_BRIDGE_PORT`: loopback port that leads to it
/// @param pids `FOREDECK_PIDS`: the sandbox's limit of processes; 0: not known, nothing is kept
///   free
record Settings(
    Path controlSocket,
    String token,
    String workspace,
    Optional<Path> egressSocket,
    int bridgePort,
    int pids) {
  private static final int BRIDGE_PORT = 3128;

  /// @throws IllegalArgumentException naming the variable that is missing or wrong
  static Settings from(Map<String, String> environment) {
    return new Settings(
        Path.of(required(environment, "FOREDECK_SOCKET")),
        required(environment, "FOREDECK_TOKEN"),
        required(environment, "FOREDECK_WORKSPACE"),
        Optional.ofNullable(environment.get("FOREDECK_EGRESS_SOCKET")).map(Path::of),
        number(environment, "FOREDECK_BRIDGE_PORT", BRIDGE_PORT, 65_535),
        number(environment, "FOREDECK_PIDS", 0, Integer.MAX_VALUE));
  }

  private static String required(Map<String, String> environment, String name) {
    String value = environment.get(name);
    if (value == null || value.isEmpty()) {
      throw new IllegalArgumentException(name + " is not set");
    }
    return value;
  }

  private static int number(Map<String, String> environment, String name, int absent, int max) {
    String value = environment.get(name);
    if (value == null) {
      return absent;
    }
    try {
      int number = Integer.parseInt(value);
      if (number > 0 && number <= max) {
        return number;
      }
    } catch (NumberFormatException _) {
      // Said below, together with a number that is out of range.
    }
    throw new IllegalArgumentException(name + " is not a number from 1 to " + max + ": " + value);
  }

  /// Without the token: this goes to logs.
  @Override
  public String toString() {
    return "Settings[" + controlSocket + ", " + workspace + ", pids " + pids + "]";
  }
}
