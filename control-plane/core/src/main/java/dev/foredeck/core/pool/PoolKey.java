package dev.foredeck.core.pool;

import dev.foredeck.core.Hashes;
import dev.foredeck.core.Resources;
import dev.foredeck.policy.Boundary;

/// What makes two unclaimed sandboxes interchangeable: all that a driver is told but id, token and
/// deadline. What else a request says is given to each process (environment), decided at the
/// gateway (egress rules, `network.allow`) or kept in rows (labels, time to live).
///
/// @param boundary what the policy compiles into the sandbox; policies with equal ones share a pool
public record PoolKey(String template, Resources resources, Boundary boundary) {

  /// For people and logs, as `host-3f9a1c2b4d5e`. Nothing is decided by it.
  public String name() {
    return template + "-" + Hashes.sha256(toString()).substring(0, 12);
  }
}
