package dev.foredeck.policy;

/// What must stand between a sandbox and its host.
public enum Isolation {
  /// The host's own kernel, held in by namespaces, seccomp and cgroups.
  STANDARD,
  /// A kernel of the sandbox's own (gVisor): the host's kernel is not reachable by system calls.
  STRONG;

  /// As in a policy: `strong`.
  public String wireName() {
    return switch (this) {
      case STANDARD -> "standard";
      case STRONG -> "strong";
    };
  }

  /// The one that satisfies both.
  public Isolation and(Isolation other) {
    return this == STRONG || other == STRONG ? STRONG : STANDARD;
  }
}
