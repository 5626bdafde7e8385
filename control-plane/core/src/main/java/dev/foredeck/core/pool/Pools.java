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
  /// @param lastFailure why the last launch that failed did so
  record State(
      PoolKey key,
      String policy,
      PoolSize size,
      int target,
      int warm,
      int warming,
      double claimsPerMinute,
      Optional<Failure> lastFailure) {}

  /// @param reason for an operator
  record Failure(String reason, Instant at) {}
}
