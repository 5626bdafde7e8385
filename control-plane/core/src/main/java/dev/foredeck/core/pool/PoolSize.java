package dev.foredeck.core.pool;

import java.time.Duration;

/// How many warm sandboxes a pool may have.
///
/// @param floor kept without any demand
/// @param ceiling at most; 0 switches the pool off
public record PoolSize(int floor, int ceiling) {
  /// Of one pool.
  public static final int MOST = 500;

  public PoolSize {
    if (floor < 0 || floor > ceiling || ceiling > MOST) {
      throw new IllegalArgumentException(
          "a pool's size is FLOOR-CEILING with 0 <= FLOOR <= CEILING <= "
              + MOST
              + ", not "
              + floor
              + "-"
              + ceiling);
    }
  }

  /// What is asked for within `lead`, which is long enough to make replacements and to meet a
  /// burst.
  int target(double claimsPerMinute, Duration lead) {
    double wanted = Math.ceil(claimsPerMinute * lead.toMillis() / 60_000.0);
    return (int) Math.clamp(wanted, floor, ceiling);
  }
}
