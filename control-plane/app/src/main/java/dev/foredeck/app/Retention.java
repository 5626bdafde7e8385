package dev.foredeck.app;

import dev.foredeck.core.store.Store;
import dev.foredeck.core.store.Store.StoreUnavailableException;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Lets the store forget what is old: without it a busy deployment fills its disk, and a database
/// without room takes no decision any more. Now, and then every few hours, on a thread of its own.
final class Retention implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(Retention.class);
  private static final long EVERY_HOURS = 6;

  private final Store store;
  private final Clock clock;
  private final Duration keepOutput;
  private final Duration keepEvents;
  private final CountDownLatch closed = new CountDownLatch(1);

  Retention(Store store, Clock clock, Duration keepOutput, Duration keepEvents) {
    this.store = store;
    this.clock = clock;
    this.keepOutput = keepOutput;
    this.keepEvents = keepEvents;
  }

  void start() {
    Thread.ofVirtual().name("retention").start(this::run);
  }

  private void run() {
    try {
      do {
        try {
          Instant now = clock.instant();
          store.retain(now.minus(keepOutput), now.minus(keepEvents));
        } catch (StoreUnavailableException e) {
          LOG.warn("what is old was not removed; the next round tries again: {}", e.getMessage());
        } catch (RuntimeException e) {
          LOG.error("what is old was not removed; the next round tries again", e);
        }
      } while (!closed.await(EVERY_HOURS, TimeUnit.HOURS));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  @Override
  public void close() {
    closed.countDown();
  }
}
