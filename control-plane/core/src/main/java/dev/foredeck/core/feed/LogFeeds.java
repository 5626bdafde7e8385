package dev.foredeck.core.feed;

import dev.foredeck.core.Id;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Operation;
import dev.foredeck.core.Patience;
import dev.foredeck.core.Problem;
import dev.foredeck.core.ProblemException;
import dev.foredeck.core.Tenancy;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Event;
import dev.foredeck.core.store.Store;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/// Feeds that read the store by cursor: nothing is pushed, so a slow reader costs a cursor and no
/// memory, and a reader that comes back goes on where it was.
public final class LogFeeds implements Feeds {
  private static final int BATCH_EVENTS = 256;
  private static final int BATCH_BYTES = 512 * 1024;
  private static final long LOOK_AGAIN_MILLIS = 1_000;

  private final Store store;
  private final Limits limits;
  private final Patience patience;
  private final AtomicInteger open = new AtomicInteger();
  private final Map<Id, AtomicInteger> openOfTenant = new ConcurrentHashMap<>();

  public LogFeeds(Store store, Limits limits) {
    this(store, limits, Patience.DEFAULT);
  }

  public LogFeeds(Store store, Limits limits, Patience patience) {
    this.patience = patience;
    this.store = store;
    this.limits = limits;
  }

  @Override
  public List<Event> page(Operation operation, Id sandbox, long after, int limit) {
    Sandbox _ = Tenancy.sandbox(store, operation, sandbox);
    return store.events(sandbox, after, Math.min(limit, limits.pageSize()), BATCH_BYTES);
  }

  @Override
  public Feed open(Operation operation, Id sandbox, long after) {
    Sandbox _ = Tenancy.sandbox(store, operation, sandbox);
    AtomicInteger ofTenant =
        openOfTenant.computeIfAbsent(operation.principal().tenant(), _ -> new AtomicInteger());
    int all = open.incrementAndGet();
    int theirs = ofTenant.incrementAndGet();
    if (all > limits.feeds() || theirs > limits.feedsPerTenant()) {
      open.decrementAndGet();
      ofTenant.decrementAndGet();
      throw new ProblemException(
          new Problem.Capacity(
              "feed-quota",
              "there are as many live feeds as allowed ("
                  + limits.feedsPerTenant()
                  + " for a tenant, "
                  + limits.feeds()
                  + " in all)",
              Duration.ofSeconds(5)));
    }
    try {
      return new LogFeed(operation, sandbox, after, ofTenant);
    } catch (RuntimeException e) {
      open.decrementAndGet();
      ofTenant.decrementAndGet();
      throw e;
    }
  }

  private final class LogFeed implements Feed {
    private final Operation operation;
    private final Id sandbox;
    private final AtomicInteger ofTenant;
    private final Semaphore woken = new Semaphore(0);
    private final Store.Subscription subscription;
    private long cursor;
    private long keySeen = System.nanoTime();
    private boolean closed;

    LogFeed(Operation operation, Id sandbox, long after, AtomicInteger ofTenant) {
      this.operation = operation;
      this.sandbox = sandbox;
      this.cursor = after;
      this.ofTenant = ofTenant;
      this.subscription = store.subscribe(sandbox, woken::release);
    }

    @Override
    public List<Event> next(Duration timeout) throws InterruptedException {
      long end = System.nanoTime() + timeout.toNanos();
      while (true) {
        woken.drainPermits();
        requireKey();
        List<Event> events = store.events(sandbox, cursor, BATCH_EVENTS, BATCH_BYTES);
        if (!events.isEmpty()) {
          cursor = events.getLast().seq();
          return events;
        }
        long leftMillis = TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime());
        if (leftMillis <= 0 || isClosed()) {
          return List.of();
        }
        boolean _ =
            woken.tryAcquire(Math.min(leftMillis, LOOK_AGAIN_MILLIS), TimeUnit.MILLISECONDS);
      }
    }

    @Override
    public boolean finished() {
      return store.sandbox(sandbox).filter(s -> s.phase().terminal()).isPresent()
          && store.lastSeq(sandbox) <= cursor;
    }

    private void requireKey() {
      long now = System.nanoTime();
      if (now - keySeen < patience.keyCheck().toNanos()) {
        return;
      }
      keySeen = now;
      if (store.key(operation.principal().key()).filter(k -> k.revokedAt().isEmpty()).isEmpty()) {
        throw new ProblemException(new Problem.Unauthenticated("this key was revoked"));
      }
    }

    private synchronized boolean isClosed() {
      return closed;
    }

    @Override
    public void close() {
      synchronized (this) {
        if (closed) {
          return;
        }
        closed = true;
      }
      subscription.close();
      open.decrementAndGet();
      ofTenant.decrementAndGet();
      woken.release();
    }
  }
}
