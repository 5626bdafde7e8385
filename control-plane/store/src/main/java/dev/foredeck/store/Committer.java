package dev.foredeck.store;

import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
import dev.foredeck.core.store.Store.StoreUnavailableException;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalLong;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Group commit: callers wait in a bounded queue, one thread takes all that is there and makes it
/// one transaction on a connection of its own.
///
/// A lost connection while the transaction commits leaves its outcome open. Each transaction locks
/// this committer's row first and writes the number of its batch into it, so reading the row (under
/// the same lock, which waits for a transaction that still runs) says whether the batch is durable.
/// A caller learns `unknown` only when the database does not come back in time.
final class Committer implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(Committer.class);

  private static final int MAX_QUEUED = 4_096;
  private static final int MAX_COMMITS = 256;
  private static final long MAX_BYTES = 8L << 20;

  /// How often a batch that others stood in the way of is tried.
  private static final int MAX_CONTENTIONS = 5;

  private static final Duration RECONNECT_AFTER = Duration.ofMillis(50);

  private final Connections connections;
  private final String id;
  private final Wakes wakes;
  private final WriteProbe probe;
  private final Duration patience;
  private final ArrayBlockingQueue<Pending> queue = new ArrayBlockingQueue<>(MAX_QUEUED);
  private final Thread thread;
  private volatile boolean closed;

  // Of the thread only.
  private @Nullable Connection connection;
  private long lastBatch;

  /// When the database was first found away; empty while it answers.
  private OptionalLong awaySince = OptionalLong.empty();

  private static final class Pending {
    private final Commit commit;
    private final long weight;
    private final CountDownLatch done = new CountDownLatch(1);
    private @Nullable CommitResult result;
    private @Nullable RuntimeException failure;

    private Pending(Commit commit) {
      this.commit = commit;
      this.weight = Batch.weight(commit);
    }

    private void succeed(CommitResult with) {
      result = with;
      done.countDown();
    }

    private void fail(RuntimeException with) {
      failure = with;
      done.countDown();
    }
  }

  /// The connection was lost while a batch committed.
  private static final class OutcomeOpenException extends SQLException {
    private static final long serialVersionUID = 1L;

    private OutcomeOpenException(SQLException cause) {
      super(cause.getMessage(), cause.getSQLState(), cause);
    }
  }

  /// @param id that no other committer ever had
  /// @param patience how long a batch waits for a database that is away
  Committer(Connections connections, String id, Wakes wakes, WriteProbe probe, Duration patience) {
    this.connections = connections;
    this.id = id;
    this.wakes = wakes;
    this.probe = probe;
    this.patience = patience;
    this.thread = Thread.ofPlatform().daemon().name("store-commit-" + id).unstarted(this::work);
  }

  /// @throws SQLException when the database cannot be reached now
  void start() throws SQLException {
    Connection opened = connect();
    new Pipeline()
        .add("insert into committer (id, batch, at) values (?, 0, transaction_timestamp())", id)
        .add("commit")
        .run(opened);
    connection = opened;
    thread.start();
  }

  /// Waits for the outcome, interrupted or not: a caller that left would not know it.
  CommitResult commit(Commit commit) {
    Batch.check(commit);
    Pending pending = new Pending(commit);
    boolean interrupted = false;
    try {
      long until = System.nanoTime() + patience.toNanos();
      while (true) {
        try {
          if (closed) {
            throw new StoreUnavailableException(
                "the store is closed", new IllegalStateException("closed"));
          }
          if (!queue.offer(pending, Math.max(0, until - System.nanoTime()), TimeUnit.NANOSECONDS)) {
            throw new StoreUnavailableException(
                "too many commits wait for the database", new IllegalStateException("queue full"));
          }
          break;
        } catch (InterruptedException _) {
          interrupted = true;
        }
      }
      while (true) {
        try {
          if (pending.done.await(1, TimeUnit.SECONDS)) {
            break;
          }
          if (closed && !thread.isAlive() && pending.done.getCount() > 0) {
            throw closedWhileWaiting();
          }
        } catch (InterruptedException _) {
          interrupted = true;
        }
      }
    } finally {
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
    CommitResult result = pending.result;
    if (result != null) {
      return result;
    }
    RuntimeException failure = pending.failure;
    if (failure instanceof StoreUnavailableException unavailable) {
      // Each caller its own, with its own stack.
      throw new StoreUnavailableException(String.valueOf(unavailable.getMessage()), unavailable);
    }
    throw new IllegalStateException("the database refused a commit", failure);
  }

  private static StoreUnavailableException closedWhileWaiting() {
    return new StoreUnavailableException(
        "the store was closed", new IllegalStateException("closed"));
  }

  private void work() {
    List<Pending> batch = new ArrayList<>();
    @Nullable Pending carried = null;
    while (true) {
      try {
        Pending first = carried == null ? queue.poll(200, TimeUnit.MILLISECONDS) : carried;
        carried = null;
        if (first == null) {
          if (closed) {
            break;
          }
          continue;
        }
        batch.clear();
        batch.add(first);
        long bytes = first.weight;
        while (batch.size() < MAX_COMMITS) {
          Pending next = queue.poll();
          if (next == null) {
            break;
          }
          if (bytes + next.weight > MAX_BYTES) {
            carried = next;
            break;
          }
          bytes += next.weight;
          batch.add(next);
        }
        process(List.copyOf(batch));
      } catch (InterruptedException _) {
        // Only close() ends this thread.
      } catch (RuntimeException e) {
        // A bug: those who wait must not wait for ever, and the next batch starts afresh.
        LOG.error("a batch failed", e);
        drop();
        batch.forEach(pending -> pending.fail(e));
      }
    }
    drop();
    for (Pending left = queue.poll(); left != null; left = queue.poll()) {
      left.fail(closedWhileWaiting());
    }
  }

  /// Every commit of the batch has its outcome afterwards.
  private void process(List<Pending> batch) {
    int contentions = 0;
    while (true) {
      try {
        attempt(batch);
        awaySince = OptionalLong.empty();
        return;
      } catch (SQLException e) {
        Faults fault = e instanceof OutcomeOpenException ? Faults.CONNECTION_LOST : Faults.of(e);
        LOG.debug("a batch of {} did not commit: {}", batch.size(), fault, e);
        switch (fault) {
          case CONNECTION_LOST -> {
            drop();
            if (outOfPatience()) {
              fail(batch, Faults.unavailable(e));
              return;
            }
            LockSupport.parkNanos(RECONNECT_AFTER.toNanos());
          }
          case CONTENTION -> {
            rollBack();
            if (++contentions >= MAX_CONTENTIONS) {
              fail(batch, Faults.unavailable(e));
              return;
            }
            LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(contentions));
          }
          case INCAPABLE -> {
            rollBack();
            probe.failed();
            fail(batch, Faults.unavailable(e));
            return;
          }
          case REFUSED -> {
            rollBack();
            if (batch.size() > 1) {
              // One of them is to blame: each alone harms no other.
              batch.forEach(pending -> process(List.of(pending)));
            } else {
              batch.getFirst().fail(new IllegalStateException(e));
            }
            return;
          }
        }
      } catch (Connections.UnsafeServerException e) {
        drop();
        probe.failed();
        fail(batch, new StoreUnavailableException(String.valueOf(e.getMessage()), e));
        return;
      }
    }
  }

  private Connection connect() throws SQLException {
    Connection opened = connections.openDurable();
    try {
      EventOrder.keep(opened);
      return opened;
    } catch (SQLException | RuntimeException e) {
      opened.close();
      throw e;
    }
  }

  private boolean outOfPatience() {
    long now = System.nanoTime();
    if (awaySince.isEmpty()) {
      awaySince = OptionalLong.of(now);
    }
    return closed || now - awaySince.getAsLong() > patience.toNanos();
  }

  private static void fail(List<Pending> batch, RuntimeException failure) {
    batch.forEach(pending -> pending.fail(failure));
  }

  private void attempt(List<Pending> batch) throws SQLException {
    Connection current = connection;
    if (current == null) {
      current = connect();
      connection = current;
    }
    Batch transaction = new Batch(batch.stream().map(pending -> pending.commit).toList());
    long durable = transaction.load(current, id);
    if (durable < 0) {
      // Somebody has removed our row (a restored backup, an overlong pause): begin again.
      new Pipeline()
          .add(
              "insert into committer (id, batch, at) values (?, ?, transaction_timestamp())",
              id,
              lastBatch)
          .add("commit")
          .run(current);
      transaction = new Batch(batch.stream().map(pending -> pending.commit).toList());
      transaction.load(current, id);
    }
    List<CommitResult> results = transaction.decide();
    if (transaction.changes()) {
      long number = ++lastBatch;
      try {
        transaction.write(current, id, number);
      } catch (SQLException e) {
        if (Faults.of(e) != Faults.CONNECTION_LOST) {
          throw e;
        }
        LOG.info("lost the database while committing batch {}; looking what became of it", number);
        if (!isDurable(number, e)) {
          throw e;
        }
      }
    } else {
      current.rollback();
    }
    for (int i = 0; i < batch.size(); i++) {
      batch.get(i).succeed(results.get(i));
    }
    wakes.committed(transaction.grown());
  }

  /// Whether a batch is committed, asked on a new connection for as long as patience lasts.
  private boolean isDurable(long number, SQLException lost) throws SQLException {
    while (true) {
      drop();
      try {
        Connection current = connect();
        connection = current;
        long durable = -1;
        // Waits for the transaction if the server still works on it.
        try (PreparedStatement statement =
            current.prepareStatement("select batch from committer where id = ? for update")) {
          statement.setString(1, id);
          try (ResultSet rows = statement.executeQuery()) {
            while (rows.next()) {
              durable = rows.getLong(1);
            }
          }
        }
        current.rollback();
        if (durable < 0) {
          throw new OutcomeOpenException(lost);
        }
        return durable >= number;
      } catch (OutcomeOpenException e) {
        throw e;
      } catch (SQLException e) {
        LOG.debug("cannot look what became of batch {}", number, e);
        if (outOfPatience()) {
          throw new OutcomeOpenException(lost);
        }
        LockSupport.parkNanos(RECONNECT_AFTER.toNanos());
      }
    }
  }

  private void rollBack() {
    try {
      Connection current = connection;
      if (current != null) {
        current.rollback();
      }
    } catch (SQLException e) {
      LOG.debug("cannot roll back", e);
      drop();
    }
  }

  private void drop() {
    Connection current = connection;
    connection = null;
    if (current != null) {
      try {
        current.close();
      } catch (SQLException e) {
        LOG.debug("cannot close a connection", e);
      }
    }
  }

  /// Finishes what is queued.
  @Override
  public void close() {
    closed = true;
    boolean interrupted = false;
    try {
      thread.join(patience.plusSeconds(5));
    } catch (InterruptedException _) {
      interrupted = true;
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}
