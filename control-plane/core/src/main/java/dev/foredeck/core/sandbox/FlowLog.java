package dev.foredeck.core.sandbox;

import dev.foredeck.core.Events;
import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.egress.EgressGateway.FlowRecorder;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
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

  private final Store store;
  private final Clock clock;
  private final Id sandbox;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private List<Flow> waiting = new ArrayList<>();
  private boolean writing;
  private boolean closed;

  FlowLog(Store store, Clock clock, Id sandbox) {
    this.store = store;
    this.clock = clock;
    this.sandbox = sandbox;
  }

  @Override
  public void record(Flow flow) {
    lock.lock();
    try {
      while (waiting.size() >= MOST_WAITING && !closed) {
        changed.awaitUninterruptibly();
      }
      if (closed) {
        LOG.warn("sandbox {}: a flow to {} ended after its log was closed", sandbox, flow.host());
        return;
      }
      waiting.add(flow);
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
      List<Flow> batch;
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

  private void append(List<Flow> batch) {
    while (true) {
      try {
        List<Change> changes = new ArrayList<>();
        for (Flow flow : batch) {
          NewEvent event = Events.flow(clock.instant(), claimed(flow), flow);
          changes.add(new Change.AppendEvent(event));
        }
        CommitResult _ = store.commit(new Commit(sandbox, changes));
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
