package dev.foredeck.core.sandbox;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.store.Store;
import dev.foredeck.core.store.Store.StoreUnavailableException;
import java.time.Duration;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Compares what the backend has with what the rows say, both ways: an orphan (backend, no live
/// row, of a sandbox or a warm one) is destroyed; a row that no loop looks after gets one, which
/// finds the ghost. A row exists before its launch begins, so what has no live row is never merely
/// young.
public final class Reaper implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(Reaper.class);
  private static final Duration VERB = Duration.ofSeconds(60);

  private final Store store;
  private final Driver driver;
  private final Launcher launcher;
  private final Duration period;
  private final CountDownLatch closed = new CountDownLatch(1);

  public Reaper(Store store, Driver driver, Launcher launcher, Duration period) {
    this.store = store;
    this.driver = driver;
    this.launcher = launcher;
    this.period = period;
  }

  /// Sweeps now, then every period, on a thread of its own.
  public void start() {
    Thread.ofVirtual().name("reaper").start(this::run);
  }

  private void run() {
    try {
      do {
        try {
          sweep();
        } catch (DriverException | StoreUnavailableException e) {
          LOG.warn("sweep not finished: {}", e.getMessage());
        } catch (RuntimeException e) {
          LOG.error("sweep not finished: a fault of the control plane", e);
        }
      } while (!closed.await(period.toMillis(), TimeUnit.MILLISECONDS));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /// One comparison.
  ///
  /// @return how many orphans were destroyed
  public int sweep() throws DriverException {
    int destroyed = 0;
    for (BackendState state : driver.list(VERB)) {
      Id id = state.sandbox();
      if (!recorded(id) && !launcher.tends(id)) {
        LOG.info("sandbox {}: an orphan ({}), destroyed", id, state.status());
        try {
          driver.destroy(id, VERB);
          destroyed++;
        } catch (DriverException e) {
          // One that cannot be destroyed now must not hold up the rest.
          LOG.warn("sandbox {}: an orphan, not destroyed yet: {}", id, e.getMessage());
        }
      }
    }
    int adopted = launcher.adopt();
    if (adopted > 0) {
      LOG.info("{} sandboxes taken up", adopted);
    }
    return destroyed;
  }

  /// Whether a row says that there is such a sandbox. Warm ones first: one that is claimed in
  /// between has a sandbox's row from the moment on at which it has no warm one.
  private boolean recorded(Id id) {
    return store.warmSandbox(id).isPresent()
        || store.sandbox(id).filter(s -> !s.phase().terminal()).isPresent();
  }

  @Override
  public void close() {
    closed.countDown();
  }
}
