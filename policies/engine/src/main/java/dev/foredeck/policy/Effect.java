package dev.foredeck.policy;

/// What a policy says of an action. Strictest first: of several rules that match, the strictest
/// wins, whatever their order.
public enum Effect {
  DENY,
  ASK,
  ALLOW;

  /// `deny`, `ask`, `allow`.
  public String wireName() {
    return switch (this) {
      case DENY -> "deny";
      case ASK -> "ask";
      case ALLOW -> "allow";
    };
  }
}
