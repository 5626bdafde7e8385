package dev.foredeck.policy;

import java.util.List;
import java.util.OptionalLong;

/// A compiled policy: immutable, thread-safe, cheap to ask.
public interface Policy {

  String name();

  /// Changes with any change of the source or of what it extends: 12 hexadecimal digits of a
  /// SHA-256.
  String version();

  /// `name@version`.
  default String reference() {
    return name() + "@" + version();
  }

  /// Whether decisions are only recorded and not enforced (`mode: shadow`).
  boolean shadow();

  Boundary boundary();

  /// Bytes of a call's recorded output per channel (`results: maxBytes`), where the policy says.
  OptionalLong maxResultBytes();

  /// Decides on one action. Never throws: an evaluation error is a deny whose reason says so.
  Decision decide(Action action);

  /// Whether the egress rules admit every host that `pattern` matches: what a request's
  /// `network.allow` is held to.
  boolean admits(HostPattern pattern);

  /// The ids of every rule, its own first; those of a policy that it extends as `parent/id`. What a
  /// decision table must cover.
  default List<String> ruleIds() {
    return List.of();
  }

  /// One line for each rule that matches the action, with its effect: what `explain` prints.
  List<String> explain(Action action);
}
