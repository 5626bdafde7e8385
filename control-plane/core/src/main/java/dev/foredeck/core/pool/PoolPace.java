package dev.foredeck.core.pool;

import java.time.Duration;

/// The times of warm pools, in one place; tests shrink them.
///
/// @param maxAge a warm sandbox that is older is replaced, and gone at twice that whatever happens
/// @param halfLife of a claim's weight in the demand
/// @param lead for how long the demand is kept in stock
/// @param watch how often warm sandboxes are inspected, and rows compared
/// @param breath after a claim before anything is launched: the claimed one has the processor first
/// @param retry first pause after a launch that failed
/// @param mostRetry longest pause after launches that failed
/// @param full pause after the backend had no place
public record PoolPace(
    Duration maxAge,
    Duration halfLife,
    Duration lead,
    Duration watch,
    Duration breath,
    Duration retry,
    Duration mostRetry,
    Duration full) {

  public static final PoolPace DEFAULT =
      new PoolPace(
          Duration.ofHours(1),
          Duration.ofMinutes(1),
          Duration.ofSeconds(30),
          Duration.ofSeconds(2),
          Duration.ofMillis(50),
          Duration.ofSeconds(1),
          Duration.ofSeconds(60),
          Duration.ofSeconds(30));

  /// After so many failures in a row.
  Duration pause(int failures) {
    Duration pause = retry;
    for (int i = 1; i < failures && pause.compareTo(mostRetry) < 0; i++) {
      pause = pause.multipliedBy(2);
    }
    return pause.compareTo(mostRetry) < 0 ? pause : mostRetry;
  }
}
