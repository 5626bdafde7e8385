package dev.foredeck.core.pool;

import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import java.time.Instant;
import java.util.Optional;

/// A sandbox that nobody has asked for yet, as its row says. Claiming it removes the row and makes
/// the sandbox's, under the same id, in one commit.
///
/// @param owner the replica that made it, and alone hands it out
/// @param policy `name@version` whose boundary it was launched with
/// @param bootId the life of its agent, empty before it was warm
/// @param since when it came into its state
/// @param expiresAt its deadline as the backend knows it
public record WarmSandbox(
    Id id,
    String owner,
    String template,
    Resources resources,
    String policy,
    State state,
    String bootId,
    Instant createdAt,
    Instant since,
    Instant expiresAt) {

  /// Where it is in its short life.
  public enum State {
    /// To be launched, or launched and not yet heard of.
    WARMING,
    /// Its agent has greeted: it may be claimed.
    WARM,
    /// To be destroyed; no one may claim it any more.
    RETIRING;

    /// As in the store: `warming`.
    public String wireName() {
      return switch (this) {
        case WARMING -> "warming";
        case WARM -> "warm";
        case RETIRING -> "retiring";
      };
    }
  }

  /// The same one in another state.
  public WarmSandbox moved(State to, Optional<String> newBootId, Instant at) {
    return new WarmSandbox(
        id,
        owner,
        template,
        resources,
        policy,
        to,
        newBootId.orElse(bootId),
        createdAt,
        at,
        expiresAt);
  }
}
