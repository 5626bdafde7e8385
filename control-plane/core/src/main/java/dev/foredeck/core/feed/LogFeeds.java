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
import dev.foredeck.core.store.TenantCursor;
import dev.foredeck.core.store.TenantEvent;
import dev.foredeck.core.store.TenantPage;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

/// Feeds that read the store by cursor: nothing is pushed, so a slow reader costs a cursor and no
/// memory, and a reader that comes back goes on where it was.
public final class LogFeeds implements Feeds {
  private static final int BATCH_EVENTS = 256;
  private static final int BATCH_BYTES = 512 * 1024;
  private static final long LOOK_AGAIN_MILLIS = 1_000;

  /// A tenant's event can be hidden for a moment after its wake, behind a transaction that began
  /// before its own and whose end wakes nobody here.
  private static final long LOOK_AGAIN_FIRST_MILLIS = 5;

  /// Reads for one page of which nothing may be wanted.
  private static final int MOST_READS = 16;

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
  public TenantLogPage tenantPage(
      Operation operation, Optional<TenantCursor> after, Set<String> types, int limit) {
    int most = Math.min(limit, limits.pageSize());
    if (types.isEmpty()) {
      List<TenantEvent> events = tenantEvents(operation, after, most);
      return new TenantLogPage(
          events, events.isEmpty() ? after : Optional.of(events.getLast().cursor()));
    }
    List<TenantEvent> wanted = new ArrayList<>();
    Optional<TenantCursor> cursor = after;
    for (int i = 0; i < MOST_READS && wanted.size() < most; i++) {
      List<TenantEvent> events = tenantEvents(operation, cursor, BATCH_EVENTS);
      if (events.isEmpty()) {
        break;
      }
      for (TenantEvent event : events) {
        if (wanted.size() == most) {
          break;
        }
        cursor = Optional.of(event.cursor());
        if (types.contains(event.event().type())) {
          wanted.add(event);
        }
      }
    }
    return new TenantLogPage(wanted, cursor);
  }

  @Override
  public Optional<TenantCursor> last(Operation operation) {
    return store.lastOfTenant(operation.principal().tenant());
  }

  private List<TenantEvent> tenantEvents(
      Operation operation, Optional<TenantCursor> after, int limit) {
    return switch (store.tenantEvents(operation.principal().tenant(), after, limit, BATCH_BYTES)) {
      case TenantPage.Events page -> page.events();
      case TenantPage.CursorLost _ ->
          throw new ProblemException(
              new Problem.Conflict(
                  "cursor-lost",
                  "there is no event of yours where this cursor stands: it was dropped as too old,"
                      + " or the database was restored to a time before it. Begin without a cursor"
                      + " for the oldest event that is kept, or with `after=latest`"));
    };
  }

  @Override
  public Place reserve(Operation operation) {
    AtomicInteger ofTenant =
        openOfTenant.computeIfAbsent(operation.principal().tenant(), _ -> new AtomicInteger());
    int all = open.incrementAndGet();
    int theirs = ofTenant.incrementAndGet();
    Seat seat = new Seat(operation, ofTenant);
    if (all > limits.feeds() || theirs > limits.feedsPerTenant()) {
      seat.free();
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
    return seat;
  }

  @Override
  public Feed<TenantEvent> openTenant(Operation operation, Optional<TenantCursor> after) {
    // A cursor that is lost is a plain answer as long as no stream has begun.
    tenantEvents(operation, after, 1);
    try (Seat seat = (Seat) reserve(operation)) {
      return seat.kept(new TenantFeed(seat, after));
    }
  }

  private final class Seat implements Place {
    private final Operation operation;
    private final AtomicInteger ofTenant;
    private final AtomicBoolean freed = new AtomicBoolean();
    private boolean taken;

    Seat(Operation operation, AtomicInteger ofTenant) {
      this.operation = operation;
      this.ofTenant = ofTenant;
    }

    @Override
    public Feed<Event> open(Id sandbox, long after) {
      Sandbox _ = Tenancy.sandbox(store, operation, sandbox);
      return kept(new LogFeed(this, sandbox, after));
    }

    @Override
    public Feed<Event> openCall(Id sandbox, Id call) {
      return open(sandbox, store.logBefore(call));
    }

    <E> Feed<E> kept(Feed<E> feed) {
      taken = true;
      return feed;
    }

    void free() {
      if (freed.compareAndSet(false, true)) {
        open.decrementAndGet();
        ofTenant.decrementAndGet();
      }
    }

    @Override
    public void close() {
      if (!taken) {
        free();
      }
    }
  }

  /// What readers of one log and of many have in common.
  private abstract class Reader<E> implements Feed<E> {
    private final Seat seat;
    private final long lookAgainFirstMillis;
    private final Semaphore woken = new Semaphore(0);
    private final Store.Subscription subscription;
    private final AtomicBoolean closed = new AtomicBoolean();
    private long keySeen = System.nanoTime();

    /// @param grows the log's sandbox, or the tenant
    Reader(Seat seat, Id grows, long lookAgainFirstMillis) {
      this.seat = seat;
      this.lookAgainFirstMillis = lookAgainFirstMillis;
      this.subscription = store.subscribe(grows, woken::release);
    }

    final Operation operation() {
      return seat.operation;
    }

    /// What follows the cursor, which moves on.
    abstract List<E> read();

    @Override
    public final List<E> next(Duration timeout) throws InterruptedException {
      long end = System.nanoTime() + timeout.toNanos();
      long lookAgainMillis = lookAgainFirstMillis;
      while (true) {
        woken.drainPermits();
        requireKey();
        List<E> events = read();
        if (!events.isEmpty()) {
          return events;
        }
        long leftMillis = TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime());
        if (leftMillis <= 0 || closed.get()) {
          return List.of();
        }
        boolean grown =
            woken.tryAcquire(Math.min(leftMillis, lookAgainMillis), TimeUnit.MILLISECONDS);
        lookAgainMillis =
            grown ? lookAgainFirstMillis : Math.min(2 * lookAgainMillis, LOOK_AGAIN_MILLIS);
      }
    }

    private void requireKey() {
      long now = System.nanoTime();
      if (now - keySeen < patience.keyCheck().toNanos()) {
        return;
      }
      keySeen = now;
      if (store.key(operation().principal().key()).filter(k -> k.revokedAt().isEmpty()).isEmpty()) {
        throw new ProblemException(new Problem.Unauthenticated("this key was revoked"));
      }
    }

    @Override
    public final void close() {
      if (closed.compareAndSet(false, true)) {
        subscription.close();
        seat.free();
        woken.release();
      }
    }
  }

  private final class LogFeed extends Reader<Event> {
    private final Id sandbox;
    private long cursor;

    LogFeed(Seat seat, Id sandbox, long after) {
      super(seat, sandbox, LOOK_AGAIN_MILLIS);
      this.sandbox = sandbox;
      this.cursor = after;
    }

    @Override
    List<Event> read() {
      List<Event> events = store.events(sandbox, cursor, BATCH_EVENTS, BATCH_BYTES);
      cursor = events.isEmpty() ? cursor : events.getLast().seq();
      return events;
    }

    @Override
    public boolean finished() {
      return store.sandbox(sandbox).filter(s -> s.phase().terminal()).isPresent()
          && store.lastSeq(sandbox) <= cursor;
    }
  }

  private final class TenantFeed extends Reader<TenantEvent> {
    private Optional<TenantCursor> cursor;

    TenantFeed(Seat seat, Optional<TenantCursor> after) {
      super(seat, seat.operation.principal().tenant(), LOOK_AGAIN_FIRST_MILLIS);
      this.cursor = after;
    }

    @Override
    List<TenantEvent> read() {
      List<TenantEvent> events = tenantEvents(operation(), cursor, BATCH_EVENTS);
      cursor = events.isEmpty() ? cursor : Optional.of(events.getLast().cursor());
      return events;
    }

    @Override
    public boolean finished() {
      return false;
    }
  }
}
