package dev.foredeck.policy;

import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/// The rules of one file, indexed by action. A policy is its own layer and those of everything that
/// it extends; each layer is asked and the strictest answer holds.
///
/// @param closed the actions for which the layer denies what none of its rules allows. A policy
///   that extends nothing is closed for all; one that extends another only for those it has a rule
///   that allows for, and has no opinion on the others
record Layer(
    String name,
    String version,
    List<Rule> rules,
    Map<ActionName, List<Rule>> index,
    Set<ActionName> closed) {

  static Layer of(String name, String version, List<Rule> rules, Set<ActionName> closed) {
    Map<ActionName, List<Rule>> index = new EnumMap<>(ActionName.class);
    for (Rule rule : rules) {
      for (ActionName action : rule.actions()) {
        index.computeIfAbsent(action, _ -> new ArrayList<>()).add(rule);
      }
    }
    index.replaceAll((_, indexed) -> List.copyOf(indexed));
    return new Layer(name, version, List.copyOf(rules), index, closed);
  }

  List<Rule> rulesFor(ActionName action) {
    return index.getOrDefault(action, List.of());
  }

  /// Whether every host of the pattern may be connected to as far as this layer's hosts say.
  /// Conditions are left to the connection itself, which asks again.
  boolean admits(HostPattern pattern) {
    List<Rule> egress = rulesFor(ActionName.EGRESS_CONNECT);
    for (Rule rule : egress) {
      if (rule.effect() == Effect.DENY && rule.conditions().isEmpty() && touches(rule, pattern)) {
        return false;
      }
    }
    if (!closed.contains(ActionName.EGRESS_CONNECT)) {
      return true;
    }
    for (HostPattern part : pattern.byPort()) {
      if (!covers(egress, part)) {
        return false;
      }
    }
    return true;
  }

  private static boolean touches(Rule rule, HostPattern pattern) {
    if (rule.hosts().isEmpty()) {
      return true;
    }
    for (HostPattern host : rule.hosts()) {
      if (host.overlaps(pattern)) {
        return true;
      }
    }
    return false;
  }

  /// Whether a rule of this layer allows the pattern, whatever others deny.
  boolean allows(HostPattern pattern) {
    if (!closed.contains(ActionName.EGRESS_CONNECT)) {
      return true;
    }
    for (HostPattern part : pattern.byPort()) {
      if (!covers(rulesFor(ActionName.EGRESS_CONNECT), part)) {
        return false;
      }
    }
    return true;
  }

  private static boolean covers(List<Rule> egress, HostPattern part) {
    for (Rule rule : egress) {
      if (rule.effect() == Effect.ALLOW) {
        for (HostPattern host : rule.hosts()) {
          if (host.covers(part)) {
            return true;
          }
        }
      }
    }
    return false;
  }
}
