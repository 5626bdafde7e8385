package dev.foredeck.core.pool;

import java.time.Duration;
import java.time.Instant;

/// How often a pool is asked, where what is long ago counts less: a claim's weight halves with
/// every half-life. Immutable and pure.
///
/// @param weight of all claims at `at`
record Demand(double weight, Instant at, Duration halfLife) {
  private static final double MINUTE_MILLIS = 60_000;

  static Demand none(Instant now, Duration halfLife) {
    return new Demand(0, now, halfLife);
  }

  /// One claim more.
  Demand claimed(Instant now) {
    // A clock that was set back must not make old claims heavier.
    return new Demand(weight(now) + 1, now.isBefore(at) ? at : now, halfLife);
  }

  /// What a steady stream of as many claims a minute would have left.
  double perMinute(Instant now) {
    return weight(now) * Math.log(2) * MINUTE_MILLIS / halfLife.toMillis();
  }

  private double weight(Instant now) {
    double halfLives = (double) Duration.between(at, now).toMillis() / halfLife.toMillis();
    return weight * Math.pow(0.5, Math.max(0, halfLives));
  }
}
