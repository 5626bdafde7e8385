package dev.foredeck.store;

import java.time.Duration;
import java.util.concurrent.locks.LockSupport;
import org.jooq.DSLContext;
import org.jooq.exception.DataAccessException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Knows whether the database takes writes: on a full disk it still reads, and small commits find
/// room in pages that are there. A commit that failed says no at once; yes is said again when as
/// much as a batch of output has found new room. Commits that succeed pay nothing for it.
///
/// Threading: one thread writes; the rest may be called by any.
final class WriteProbe implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(WriteProbe.class);

  private static final Duration WHILE_ABLE = Duration.ofSeconds(30);
  private static final Duration WHILE_UNABLE = Duration.ofSeconds(1);

  private static final Duration FINISH = Duration.ofSeconds(5);

  /// New pages either way; few, where they are written for as long as nothing is wrong.
  private static final int BYTES_WHILE_ABLE = 16 * 1024;

  private static final int BYTES_WHILE_UNABLE = 1024 * 1024;

  private final DSLContext db;
  private final Thread thread;
  private volatile boolean able = true;
  private volatile boolean closed;

  WriteProbe(DSLContext db) {
    this.db = db;
    this.thread = Thread.ofPlatform().daemon().name("store-probe").unstarted(this::work);
  }

  void start() {
    thread.start();
  }

  boolean able() {
    return able;
  }

  /// The database answered a commit that it cannot.
  void failed() {
    if (able) {
      able = false;
      LockSupport.unpark(thread);
    }
  }

  private void work() {
    while (!closed) {
      LockSupport.parkNanos((able ? WHILE_ABLE : WHILE_UNABLE).toNanos());
      if (closed) {
        return;
      }
      boolean before = able;
      able = probe(before ? BYTES_WHILE_ABLE : BYTES_WHILE_UNABLE);
      if (able != before) {
        LOG.warn("the database {} writes", able ? "takes again" : "takes no");
      }
    }
  }

  private boolean probe(int bytes) {
    try {
      db.transaction(transaction -> {
        DSLContext own = transaction.dsl();
        // One replica's is as good as another's: a failure to wait for it says nothing.
        own.execute("set local lock_timeout = '5s'");
        // Truncating begins a new file, so that what is written needs new room.
        own.execute("truncate write_probe");
        own.execute("insert into write_probe values (decode(repeat('00', " + bytes + "), 'hex'))");
      });
      return true;
    } catch (DataAccessException e) {
      LOG.debug("the database's probe failed", e);
      // One that is away is no news from here: whoever asks whether it answers hears of that.
      boolean incapable =
          Faults.sql(e).map(Faults::of).filter(f -> f == Faults.INCAPABLE).isPresent();
      return able && !incapable;
    }
  }

  @Override
  public void close() {
    closed = true;
    LockSupport.unpark(thread);
    try {
      thread.join(FINISH);
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    }
  }
}
