package dev.foredeck.driver.kubernetes;

import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.host.Deadline;
import java.util.concurrent.TimeUnit;

/// Bounds how often the API server is written to: so many at once, then so many a second. Whoever
/// comes later waits its turn, in order.
///
/// Threading: any.
final class WriteRate {
  static final int BURST = 40;
  static final int PER_SECOND = 20;
  private static final long PAUSE_NANOS = TimeUnit.SECONDS.toNanos(1) / PER_SECOND;

  /// When the next write could go if there were no burst. Guarded by `this`.
  private long nextNanos = System.nanoTime() - BURST * PAUSE_NANOS;

  /// Waits for a turn.
  void await(Deadline deadline) throws DriverException.Failed {
    long wait;
    synchronized (this) {
      long now = System.nanoTime();
      nextNanos = Math.max(nextNanos, now - BURST * PAUSE_NANOS);
      wait = nextNanos - now;
      if (wait > deadline.remainingNanos()) {
        throw new DriverException.Failed(
            "the deadline passed before it was this sandbox's turn to write to the API server");
      }
      nextNanos += PAUSE_NANOS;
    }
    if (wait > 0) {
      try {
        TimeUnit.NANOSECONDS.sleep(wait);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new DriverException.Failed("interrupted before a write to the API server", e);
      }
    }
  }
}
