package dev.foredeck.egress;

/// Every bound on what peers can make a gateway or its link hold, and every wait of both.
///
/// @param strangers connections at once, on one port, that have not shown who they are
/// @param strangersPerAddress of them from one address: a sandbox that floods holds up itself
/// @param greetingMillis for the TLS handshake and what shows who it is, together
/// @param penaltyMillis that the place of a stranger who failed stays taken
/// @param links of control planes at once
/// @param sandboxes known at once
/// @param flows kept at once, of all sandboxes; each sandbox has [EgressLimits#pendingFlows]
/// @param silenceMillis after which a link that brought nothing is ended; a third of it pings
/// @param answerMillis for the rules to answer, then the request is refused
/// @param graceMillis that running connections may go on without a link
/// @param keepMillis that flows are kept for a control plane that does not come
/// @param openMillis and `closeMillis` a control plane waits for the gateways
/// @param mostRetryMillis between attempts to link
public record LinkLimits(
    int strangers,
    int strangersPerAddress,
    long greetingMillis,
    long penaltyMillis,
    int links,
    int sandboxes,
    int flows,
    long silenceMillis,
    long answerMillis,
    long graceMillis,
    long keepMillis,
    long openMillis,
    long closeMillis,
    long mostRetryMillis) {

  public static final LinkLimits DEFAULT =
      new LinkLimits(
          512,
          32,
          10_000,
          1_000,
          64,
          10_000,
          50_000,
          15_000,
          5_000,
          60_000,
          86_400_000L,
          10_000,
          10_000,
          5_000);
}
