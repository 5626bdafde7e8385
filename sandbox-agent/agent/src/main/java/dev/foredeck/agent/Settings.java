package dev.foredeck.agent;

import dev.foredeck.protocol.CertificatePin;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import java.util.regex.Pattern;

/// What the driver tells the agent, by environment.
///
/// @param reach how control plane and agent come together
/// @param workspace `FOREDECK_WORKSPACE`: the folder whose files the agent serves
/// @param bridgePort `FOREDECK_BRIDGE_PORT`: loopback port that leads to the egress gateway
/// @param pids `FOREDECK_PIDS`: the sandbox's limit of processes; 0: not known, nothing is kept
///   free
/// @param fileBytes `FOREDECK_FILE_BYTES`: the most that any one file may have, for files that
///   nothing else counts; 0: no such limit
record Settings(Reach reach, String workspace, int bridgePort, int pids, long fileBytes) {
  private static final int BRIDGE_PORT = 3128;
  private static final int MAX_PORT = 65_535;
  private static final Pattern SHA_256 = Pattern.compile("[0-9a-f]{64}");

  /// Who dials; what is spoken is the same.
  sealed interface Reach {

    /// The agent dials.
    ///
    /// @param controlSocket `FOREDECK_SOCKET`: the control plane's unix socket
    /// @param token `FOREDECK_TOKEN`: proves to the control plane which sandbox dials
    /// @param egressSocket `FOREDECK_EGRESS_SOCKET`: the egress gateway's unix socket; absent: no
    ///   bridge
    record Dial(Path controlSocket, String token, Optional<Path> egressSocket) implements Reach {
      /// Without the token: this goes to logs.
      @Override
      public String toString() {
        return "Dial[" + controlSocket + "]";
      }
    }

    /// The control plane dials. Nothing here is secret.
    ///
    /// @param port `FOREDECK_LISTEN`: TCP port, on every address of the sandbox
    /// @param pin `FOREDECK_PIN`: SHA-256 of the deployment's certificate
    /// @param tokenSha256 `FOREDECK_TOKEN_SHA256`: of the token that the control plane must know
    record Listen(int port, CertificatePin pin, String tokenSha256) implements Reach {}
  }

  /// @throws IllegalArgumentException naming the variable that is missing or wrong
  static Settings from(Map<String, String> environment) {
    return new Settings(
        reach(environment),
        required(environment, "FOREDECK_WORKSPACE"),
        (int) number(environment, "FOREDECK_BRIDGE_PORT", BRIDGE_PORT, MAX_PORT),
        (int) number(environment, "FOREDECK_PIDS", 0, Integer.MAX_VALUE),
        number(environment, "FOREDECK_FILE_BYTES", 0, Long.MAX_VALUE));
  }

  private static Reach reach(Map<String, String> environment) {
    if (!environment.containsKey("FOREDECK_LISTEN")) {
      return new Reach.Dial(
          Path.of(required(environment, "FOREDECK_SOCKET")),
          required(environment, "FOREDECK_TOKEN"),
          Optional.ofNullable(environment.get("FOREDECK_EGRESS_SOCKET")).map(Path::of));
    }
    return new Reach.Listen(
        (int) number(environment, "FOREDECK_LISTEN", 0, MAX_PORT),
        CertificatePin.of(hash(environment, "FOREDECK_PIN")),
        hash(environment, "FOREDECK_TOKEN_SHA256"));
  }

  private static String required(Map<String, String> environment, String name) {
    String value = environment.get(name);
    if (value == null || value.isEmpty()) {
      throw new IllegalArgumentException(name + " is not set");
    }
    return value;
  }

  private static String hash(Map<String, String> environment, String name) {
    String value = required(environment, name);
    if (!SHA_256.matcher(value).matches()) {
      throw new IllegalArgumentException(name + " is not 64 hexadecimal digits");
    }
    return value;
  }

  private static long number(Map<String, String> environment, String name, long absent, long max) {
    String value = environment.get(name);
    if (value == null) {
      return absent;
    }
    try {
      long number = Long.parseLong(value);
      if (number > 0 && number <= max) {
        return number;
      }
    } catch (NumberFormatException _) {
      // Said below, together with a number that is out of range.
    }
    throw new IllegalArgumentException(name + " is not a number from 1 to " + max + ": " + value);
  }
}
