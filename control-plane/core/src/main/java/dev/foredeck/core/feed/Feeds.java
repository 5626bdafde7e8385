package dev.foredeck.core.feed;

import dev.foredeck.core.Id;
import dev.foredeck.core.Operation;
import dev.foredeck.core.store.Event;
import dev.foredeck.core.store.TenantCursor;
import dev.foredeck.core.store.TenantEvent;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/// Live readers of logs.
public interface Feeds {

  /// One page of a sandbox's log, without waiting.
  List<Event> page(Operation operation, Id sandbox, long after, int limit);

  /// One page of all logs of the operation's tenant, without waiting.
  ///
  /// Problems: `Conflict(cursor-lost)`.
  ///
  /// @param after the oldest that is kept, where empty
  /// @param types of the events wanted; empty for all
  TenantLogPage tenantPage(
      Operation operation, Optional<TenantCursor> after, Set<String> types, int limit);

  /// @param next where the page after this one begins; empty only where nothing was ever read. May
  ///   have moved on over events that were not wanted where no event was found.
  record TenantLogPage(List<TenantEvent> events, Optional<TenantCursor> next) {
    public TenantLogPage {
      events = List.copyOf(events);
    }
  }

  /// The tenant's last event, for readers that want only what is to come; empty without any event.
  Optional<TenantCursor> last(Operation operation);

  /// Takes a place among the live readers, for one whose log is only about to be made: a reader
  /// that would find no place is refused before anything is recorded for it.
  ///
  /// Problems: `Capacity(feed-quota)`.
  Place reserve(Operation operation);

  /// Opens a live reader after `after`.
  ///
  /// Problems: `NotFound`, `Capacity(feed-quota)`.
  default Feed<Event> open(Operation operation, Id sandbox, long after) {
    try (Place place = reserve(operation)) {
      return place.open(sandbox, after);
    }
  }

  /// Opens a live reader of all logs of the operation's tenant, which never finishes.
  ///
  /// Problems: `Conflict(cursor-lost)`, `Capacity(feed-quota)`; the former may come later, too.
  ///
  /// @param after the oldest that is kept, where empty
  Feed<TenantEvent> openTenant(Operation operation, Optional<TenantCursor> after);

  /// A live reader's place. The reader that was opened has it until it closes; closing the place
  /// gives it back where none was.
  interface Place extends AutoCloseable {
    /// Problems: `NotFound`.
    Feed<Event> open(Id sandbox, long after);

    /// Begins with the first event of `call`.
    ///
    /// Problems: `NotFound`.
    Feed<Event> openCall(Id sandbox, Id call);

    @Override
    void close();
  }

  /// One reader. Not thread-safe; `close` may come from any thread and frees the reader.
  ///
  /// @param <E> an event, with what else the reader has to know of it
  interface Feed<E> extends AutoCloseable {
    /// The next events, waiting for at most `timeout`; empty when there were none (a moment for a
    /// heartbeat).
    ///
    /// @throws dev.foredeck.core.ProblemException `Unauthenticated` once the key was revoked
    List<E> next(Duration timeout) throws InterruptedException;

    /// Whether every event was returned and none will come: the sandbox is gone or failed.
    boolean finished();

    @Override
    void close();
  }
}
