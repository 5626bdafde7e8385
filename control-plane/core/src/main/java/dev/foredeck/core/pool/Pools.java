package dev.foredeck.core.pool;

import dev.foredeck.core.Operation;
import java.time.Instant;
import java.util.List;
import java.util.Optional;

/// What doors may ask about warm pools.
public interface Pools {

  /// Every configured pool of this replica. Operators only.
  List<State> list(Operation operation);

  /// A pool as it is.
  ///
  /// @param policy whose boundary its sandboxes have, `name@version`
  /// @param target how many it should have now
  /// @param warm may be claimed
  /// @param warming are being launched
  /// @param tally since this control plane started
  /// @param lastFailure why the last launch that failed did so
  record State(
      PoolKey key,
      String policy,
      PoolSize size,
      int target,
      int warm,
      int warming,
      double claimsPerMinute,
      Tally tally,
      Optional<Failure> lastFailure) {}

  /// What a pool has done; each number only grows.
  ///
  /// @param claimedWarm were offered a warm sandbox
  /// @param claimedCold found none, and were launched cold
  /// @param launched became warm
  /// @param failed launches that did not
  record Tally(long claimedWarm, long claimedCold, long launched, long failed) {
    public static final Tally NOTHING = new Tally(0, 0, 0, 0);

    Tally claimed(boolean warm) {
      return new Tally(
          claimedWarm + (warm ? 1 : 0), claimedCold + (warm ? 0 : 1), launched, failed);
    }

    Tally launched(boolean warm) {
      return new Tally(
          claimedWarm, claimedCold, launched + (warm ? 1 : 0), failed + (warm ? 0 : 1));
    }
  }

  /// @param reason for an operator
  record Failure(String reason, Instant at) {}
}
