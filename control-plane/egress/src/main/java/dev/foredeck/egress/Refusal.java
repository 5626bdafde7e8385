package dev.foredeck.egress;

/// Why a connection ends before its time: what the client is told and what the flow records. The
/// reason is for people and agents; it holds no secret.
final class Refusal extends Exception {
  private static final long serialVersionUID = 1L;

  private final int status;
  private final String rule;
  private final String reason;
  private final boolean denied;

  private Refusal(int status, String rule, String reason, boolean denied) {
    super(reason, null, false, false);
    this.status = status;
    this.rule = rule;
    this.reason = reason;
    this.denied = denied;
  }

  /// The request is not one that this proxy understands, or is ambiguous.
  static Refusal badRequest(String reason) {
    return new Refusal(400, "bad-request", reason, true);
  }

  /// Policy, or a rule that no policy can change, says no.
  static Refusal denied(String rule, String reason) {
    return new Refusal(403, rule, reason, true);
  }

  /// One of [EgressLimits] was reached.
  static Refusal limit(int status, String reason) {
    return new Refusal(status, "limit", reason, true);
  }

  /// Nobody is there who could decide or record.
  static Refusal unavailable(String reason) {
    return new Refusal(503, "unavailable", reason, true);
  }

  /// The name has no address that could be had in time.
  static Refusal unresolved(String reason) {
    return new Refusal(502, "unresolved", reason, true);
  }

  /// Policy allowed it and the other side failed: recorded under the rule that allowed it.
  static Refusal upstream(int status, String reason) {
    return new Refusal(status, "", reason, false);
  }

  int status() {
    return status;
  }

  String rule() {
    return rule;
  }

  String reason() {
    return reason;
  }

  /// False where the rules let it through and the web did not answer.
  boolean isDenied() {
    return denied;
  }
}
