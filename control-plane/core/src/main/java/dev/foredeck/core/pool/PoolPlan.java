package dev.foredeck.core.pool;

import dev.foredeck.core.Id;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;

/// What a pool should do next, from what it has and what it should have. Pure.
///
/// @param launch how many to make
/// @param retire which to give up, the oldest first
record PoolPlan(int launch, List<Id> retire) {
  PoolPlan {
    retire = List.copyOf(retire);
  }

  /// @param target how many young ones there should be
  /// @param free may be claimed, the oldest first
  /// @param coming are being launched
  static PoolPlan of(int target, List<WarmSandbox> free, int coming, Duration maxAge, Instant now) {
    List<WarmSandbox> old = new ArrayList<>();
    List<WarmSandbox> young = new ArrayList<>();
    for (WarmSandbox warm : free) {
      boolean aged = now.isAfter(warm.createdAt().plus(maxAge));
      (aged ? old : young).add(warm);
    }
    List<Id> retire = new ArrayList<>();
    for (WarmSandbox warm : old) {
      // An old one is better than none: it goes when its replacement is there, or at its end.
      if (young.size() >= target || now.isAfter(warm.createdAt().plus(maxAge.multipliedBy(2)))) {
        retire.add(warm.id());
      }
    }
    for (int i = 0; i < young.size() - target; i++) {
      retire.add(young.get(i).id());
    }
    return new PoolPlan(Math.max(0, target - young.size() - coming), retire);
  }
}
