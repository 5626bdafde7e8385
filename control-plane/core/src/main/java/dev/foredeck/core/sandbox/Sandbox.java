package dev.foredeck.core.sandbox;

import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// A sandbox as its row says.
///
/// @param owner the replica whose launcher makes it real
/// @param policy `name@version` it started under
/// @param env of every process in it; values may be secret, never shown
/// @param networkAllow host patterns that narrow the policy's egress; empty optional: the policy
///   alone decides
/// @param destroyOnExit whether it goes when its first call has ended
/// @param reason why it is in its phase, for a person
/// @param bootId the life of the agent that was ready, empty before
/// @param endedAt when it became gone or failed
public record Sandbox(
    Id id,
    Id tenant,
    String owner,
    String template,
    Resources resources,
    String policy,
    Map<String, String> env,
    Map<String, String> labels,
    Optional<List<String>> networkAllow,
    boolean destroyOnExit,
    Phase phase,
    String reason,
    String bootId,
    Instant createdAt,
    Instant expiresAt,
    Optional<Instant> endedAt) {
  public Sandbox {
    env = Map.copyOf(env);
    labels = Map.copyOf(labels);
    networkAllow = networkAllow.map(List::copyOf);
  }

  @Override
  public String toString() {
    return "Sandbox[" + id + ", " + phase + "]";
  }
}
