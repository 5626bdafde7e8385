package dev.foredeck.egress;

/// Every bound on what a sandbox can make the gateway do or hold.
///
/// @param connections open at once per sandbox; one more is answered 503
/// @param connectionsPerSecond accepted per sandbox; more wait in the socket's backlog
/// @param headBytes of a request's or a response's head
/// @param headers in one head
/// @param helloBytes of TLS records read until the ClientHello is whole
/// @param bytesPerFlow both directions together
/// @param bytesPerSandbox both directions of all flows, from the first open to the close
/// @param bytesPerSecond both directions of all of a sandbox's flows; more waits
/// @param headMillis for the whole request head, and again for the whole ClientHello
/// @param resolveMillis for one name
/// @param connectMillis for all of a name's addresses together
/// @param idleMillis without a byte in either direction
/// @param totalMillis from accept to end
/// @param lookups of names under way at once per sandbox
/// @param pendingFlows not yet taken by the recorder, per sandbox; then new flows wait
public record EgressLimits(
    int connections,
    int connectionsPerSecond,
    int headBytes,
    int headers,
    int helloBytes,
    long bytesPerFlow,
    long bytesPerSandbox,
    long bytesPerSecond,
    long headMillis,
    long resolveMillis,
    long connectMillis,
    long idleMillis,
    long totalMillis,
    int lookups,
    int pendingFlows) {

  /// What one copying direction holds; no head or ClientHello may be larger.
  static final int BUFFER_BYTES = 64 * 1024;

  /// Enough for installing packages and cloning repositories; a stolen gigabyte takes a while.
  public static final EgressLimits DEFAULT =
      new EgressLimits(
          128, 200, 32 * 1024, 100, 16 * 1024, 4L << 30, 32L << 30, 64L << 20, 10_000, 5_000,
          10_000, 120_000, 3_600_000, 4, 256);

  public EgressLimits {
    within("connections", connections, 1, 10_000);
    within("connectionsPerSecond", connectionsPerSecond, 1, 100_000);
    within("headBytes", headBytes, 256, BUFFER_BYTES);
    within("headers", headers, 1, 1_000);
    within("helloBytes", helloBytes, 512, BUFFER_BYTES);
    within("bytesPerFlow", bytesPerFlow, 1, Long.MAX_VALUE / 2);
    within("bytesPerSandbox", bytesPerSandbox, 1, Long.MAX_VALUE / 2);
    within("bytesPerSecond", bytesPerSecond, 1, 1L << 40);
    within("headMillis", headMillis, 1, 600_000);
    within("resolveMillis", resolveMillis, 1, 600_000);
    within("connectMillis", connectMillis, 1, 600_000);
    within("idleMillis", idleMillis, 1, 86_400_000);
    within("totalMillis", totalMillis, 1, 7 * 86_400_000L);
    within("lookups", lookups, 1, 1_000);
    within("pendingFlows", pendingFlows, 1, 100_000);
  }

  private static void within(String name, long value, long least, long most) {
    if (value < least || value > most) {
      throw new IllegalArgumentException(
          "egress limit " + name + " is " + value + "; it must be " + least + " to " + most);
    }
  }
}
