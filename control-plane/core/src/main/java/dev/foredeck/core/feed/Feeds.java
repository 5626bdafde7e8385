package dev.foredeck.core.feed;

import dev.foredeck.core.Id;
import dev.foredeck.core.Operation;
import dev.foredeck.core.store.Event;
import java.time.Duration;
import java.util.List;

/// Live readers of logs.
public interface Feeds {

  /// One page of a sandbox's log, without waiting.
  List<Event> page(Operation operation, Id sandbox, long after, int limit);

  /// Opens a live reader after `after`.
  ///
  /// Problems: `NotFound`, `Capacity(feed-quota)`.
  Feed open(Operation operation, Id sandbox, long after);

  /// Opens a live reader that begins at or before the first event of `call`. Where the log is known
  /// to hold nothing of the call before some event, it may begin there.
  default Feed openCall(Operation operation, Id sandbox, Id call) {
    return open(operation, sandbox, 0);
  }

  /// One reader. Not thread-safe; `close` may come from any thread and frees the reader.
  interface Feed extends AutoCloseable {
    /// The next events, waiting for at most `timeout`; empty when there were none (a moment for a
    /// heartbeat).
    ///
    /// @throws dev.foredeck.core.ProblemException `Unauthenticated` once the key was revoked
    List<Event> next(Duration timeout) throws InterruptedException;

    /// Whether the sandbox is gone or failed and every event was returned.
    boolean finished();

    @Override
    void close();
  }
}
