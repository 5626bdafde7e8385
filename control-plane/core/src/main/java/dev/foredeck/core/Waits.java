package dev.foredeck.core;

import dev.foredeck.core.store.Store;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/// Waiting for something in the store to become true: woken by the log, and looking again by itself
/// in case a wake got lost.
public final class Waits {
  private static final long LOOK_AGAIN_MILLIS = 1_000;

  private Waits() {}

  /// @param condition present when the waiting is over; called at least once
  /// @return empty when the time was over first
  public static <T> Optional<T> until(
      Store store, Id sandbox, Duration timeout, Supplier<Optional<T>> condition) {
    long end = System.nanoTime() + timeout.toNanos();
    Semaphore woken = new Semaphore(0);
    try (Store.Subscription _ = store.subscribe(sandbox, woken::release)) {
      while (true) {
        Optional<T> value = condition.get();
        long leftMillis = TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime());
        if (value.isPresent() || leftMillis <= 0) {
          return value;
        }
        boolean _ =
            woken.tryAcquire(Math.min(leftMillis, LOOK_AGAIN_MILLIS), TimeUnit.MILLISECONDS);
        woken.drainPermits();
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return Optional.empty();
    }
  }
}
