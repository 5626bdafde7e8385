package dev.foredeck.policy;

import java.util.List;

/// What the policy decided on one action, and why.
///
/// @param effect of the strictest rule that matched, or deny where none did
/// @param rules ids of the rules that decided (those with the winning effect); empty for the
///   default deny
/// @param policy `name@version`
/// @param reason for a person: the rule's own reason, or what the default says
public record Decision(Effect effect, List<String> rules, String policy, String reason) {
  public Decision {
    rules = List.copyOf(rules);
  }

  public boolean allowed() {
    return effect == Effect.ALLOW;
  }
}
