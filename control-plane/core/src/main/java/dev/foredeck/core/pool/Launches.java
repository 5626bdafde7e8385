package dev.foredeck.core.pool;

import java.util.concurrent.Semaphore;

/// Places for launches that are in work at once. Somebody waits for a cold launch and nobody for a
/// warm one: warm ones get what is free, never more than half, and nothing while a cold one waits.
public final class Launches {
  private final Semaphore places;
  private final Semaphore warm;

  /// @param most at once
  public Launches(int most) {
    places = new Semaphore(most, true);
    warm = new Semaphore(Math.max(1, most / 2));
  }

  /// Waits for a place for a sandbox that somebody asked for.
  public void acquire() throws InterruptedException {
    places.acquire();
  }

  public void release() {
    places.release();
  }

  /// Takes a place for a warm one, if one is to spare.
  boolean tryAcquireWarm() {
    if (places.hasQueuedThreads() || !warm.tryAcquire()) {
      return false;
    }
    if (!places.tryAcquire()) {
      warm.release();
      return false;
    }
    return true;
  }

  void releaseWarm() {
    places.release();
    warm.release();
  }
}
