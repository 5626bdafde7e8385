package dev.foredeck.core.sandbox;

import dev.foredeck.core.Events;
import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway.Delivery;
import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.egress.EgressGateway.FlowRecorder;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
import dev.foredeck.core.store.Event;
import dev.foredeck.core.store.NewEvent;
import dev.foredeck.core.store.Store;
import dev.foredeck.core.store.Store.StoreUnavailableException;
import java.time.Clock;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Brings a sandbox's egress flows into its log, many in one commit, off the gateway's copying
/// threads. A full queue makes the gateway's connection wait (a flow is never dropped for speed);
/// where the database stays away, flows are kept up to the bound and then counted as lost in the
/// service log.
///
/// Threading: any. The writer is a virtual thread that lives only while there is something to
/// write.
final class FlowLog implements FlowRecorder, AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(FlowLog.class);
  private static final int MOST_WAITING = 1024;
  private static final long RETRY_MILLIS = 200;

  /// Read at a time where a repeated flow is looked for.
  private static final int LOOK_BACK_EVENTS = 500;

  private static final int LOOK_BACK_BYTES = 1 << 20;

  /// @param delivery where the gateway keeps the flow until it is durable
  private record Ended(Flow flow, Optional<Delivery> delivery) {}

  private final Store store;
  private final Clock clock;
  private final Id sandbox;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private List<Ended> waiting = new ArrayList<>();
  private boolean writing;
  private boolean closed;

  FlowLog(Store store, Clock clock, Id sandbox) {
    this.store = store;
    this.clock = clock;
    this.sandbox = sandbox;
  }

  @Override
  public void record(Flow flow) {
    add(new Ended(flow, Optional.empty()));
  }

  @Override
  public void record(Flow flow, Delivery delivery) {
    add(new Ended(flow, Optional.of(delivery)));
  }

  private void add(Ended ended) {
    lock.lock();
    try {
      while (waiting.size() >= MOST_WAITING && !closed) {
        changed.awaitUninterruptibly();
      }
      if (closed) {
        LOG.warn(
            "sandbox {}: a flow to {} ended after its log was closed",
            sandbox,
            ended.flow().host());
        return;
      }
      waiting.add(ended);
      if (!writing) {
        writing = true;
        Thread.ofVirtual().name("flows-" + sandbox).start(this::write);
      }
    } finally {
      lock.unlock();
    }
  }

  /// Returns when every flow recorded before is in the log, or the time is over.
  void flush(Duration timeout) throws InterruptedException {
    lock.lock();
    try {
      long left = timeout.toNanos();
      while (writing && !closed && left > 0) {
        left = changed.awaitNanos(left);
      }
    } finally {
      lock.unlock();
    }
  }

  @Override
  public void close() {
    lock.lock();
    try {
      closed = true;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  private void write() {
    while (true) {
      List<Ended> batch;
      lock.lock();
      try {
        if (waiting.isEmpty()) {
          writing = false;
          changed.signalAll();
          return;
        }
        batch = waiting;
        waiting = new ArrayList<>();
        changed.signalAll();
      } finally {
        lock.unlock();
      }
      append(batch);
    }
  }

  private void append(List<Ended> batch) {
    while (true) {
      try {
        List<Change> changes = new ArrayList<>();
        for (Ended ended : batch) {
          if (ended.delivery().isPresent() && isRecorded(ended.delivery().get())) {
            continue;
          }
          NewEvent event =
              Events.flow(clock.instant(), claimed(ended.flow()), ended.flow(), ended.delivery());
          changes.add(new Change.AppendEvent(event));
        }
        if (!changes.isEmpty()) {
          CommitResult _ = store.commit(new Commit(sandbox, changes));
        }
        batch.forEach(ended -> ended.delivery().ifPresent(d -> d.recorded().run()));
        return;
      } catch (StoreUnavailableException e) {
        lock.lock();
        try {
          if (closed) {
            LOG.warn(
                "sandbox {}: {} flows were not recorded: {}",
                sandbox,
                batch.size(),
                e.getMessage());
            return;
          }
        } finally {
          lock.unlock();
        }
        try {
          Thread.sleep(RETRY_MILLIS);
        } catch (InterruptedException interrupted) {
          Thread.currentThread().interrupt();
          return;
        }
      } catch (RuntimeException e) {
        // A writer that dies of one batch would hold up every later one.
        LOG.error("sandbox {}: {} flows were not recorded", sandbox, batch.size(), e);
        return;
      }
    }
  }

  /// Whether the process that a repeated flow was handed to before has recorded it. A gateway's
  /// flows are recorded in their order, so the last one of it tells about all before.
  private boolean isRecorded(Delivery delivery) {
    if (!delivery.repeated()) {
      return false;
    }
    String prefix = delivery.gateway() + "-";
    long before = store.lastSeq(sandbox);
    while (before > 0) {
      long after = Math.max(0, before - LOOK_BACK_EVENTS);
      long last = -1;
      for (long at = after; at < before; ) {
        List<Event> events = store.events(sandbox, at, (int) (before - at), LOOK_BACK_BYTES);
        if (events.isEmpty()) {
          break; // What was older than the events that are kept.
        }
        for (Event event : events) {
          String id = event.data().path(Events.FLOW_ID).asText();
          if (event.type().equals(Events.FLOW) && id.startsWith(prefix)) {
            last = Math.max(last, Long.parseLong(id.substring(prefix.length())));
          }
        }
        at = events.getLast().seq();
      }
      if (last >= 0) {
        return last >= delivery.number();
      }
      before = after;
    }
    return false;
  }

  /// The call that the proxy credential claimed, where it is one of this sandbox's.
  private Optional<Id> claimed(Flow flow) {
    if (!Id.isValid(flow.claimedCall())) {
      return Optional.empty();
    }
    return store
        .call(new Id(flow.claimedCall()))
        .filter(call -> call.sandbox().equals(sandbox))
        .map(Call::id);
  }
}
