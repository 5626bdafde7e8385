package dev.foredeck.server;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Json;
import dev.foredeck.core.ProblemException;
import dev.foredeck.core.feed.Feeds.Feed;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.store.Event;
import dev.foredeck.core.store.TenantEvent;
import io.vertx.core.buffer.Buffer;
import java.io.IOException;
import java.util.List;
import java.util.Set;
import java.util.function.Predicate;

/// Writes a feed as server-sent events: a log's with its `seq` as `id:`, a tenant's with its
/// cursor. One virtual thread per feed reads the next batch only when the client has taken the one
/// before, so that a client that does not read costs one batch of memory, and, after
/// [Listen#stall], nothing: it comes back with `Last-Event-ID`.
final class EventStream {
  private static final String HEARTBEAT = ":\n\n";

  /// What a client wants to see of a feed.
  interface View {
    View EVERYTHING = of(_ -> true);

    boolean shows(Event event);

    /// Whether the stream ends after this event.
    boolean endsAfter(Event event);

    /// Without an end.
    static View of(Predicate<Event> shown) {
      return new View() {
        @Override
        public boolean shows(Event event) {
          return shown.test(event);
        }

        @Override
        public boolean endsAfter(Event event) {
          return false;
        }
      };
    }
  }

  private final Exchange exchange;
  private final Set<Feed<?>> open;

  /// Where a reader that has seen an event comes back.
  private interface Ids<E> {
    String of(E event);
  }

  /// What is shown of an event.
  private interface Envelope<E> {
    Event of(E event);
  }

  /// @param open the server's open feeds, closed when it stops
  EventStream(Exchange exchange, Set<Feed<?>> open) {
    this.exchange = exchange;
    this.open = open;
  }

  /// Until the view says so, the log is at its end, the client goes or the server stops.
  void follow(Feed<Event> feed, View view) throws IOException, InterruptedException {
    follow(feed, view, event -> event, event -> Long.toString(event.seq()));
  }

  /// Until the client goes or the server stops.
  void followTenant(Feed<TenantEvent> feed, View view) throws IOException, InterruptedException {
    follow(feed, view, TenantEvent::event, event -> event.cursor().text());
  }

  private <E> void follow(Feed<E> feed, View view, Envelope<E> envelope, Ids<E> ids)
      throws IOException, InterruptedException {
    exchange.onClose(feed::close);
    open.add(feed);
    try (feed) {
      exchange.header("X-Accel-Buffering", "no");
      exchange.beginStream(200, "text/event-stream", -1);
      exchange.write(Buffer.buffer("retry: 1000\n\n"));
      pump(feed, view, envelope, ids);
      exchange.end();
    } catch (ProblemException e) {
      // The head is out: the client hears of it as an event without an id.
      ObjectNode problem = Answer.of(e.problem()).json(exchange.trace());
      exchange.write(Buffer.buffer("event: problem\ndata: " + Json.write(problem) + "\n\n"));
      exchange.end();
    } finally {
      open.remove(feed);
    }
  }

  private <E> void pump(Feed<E> feed, View view, Envelope<E> envelope, Ids<E> ids)
      throws IOException, InterruptedException {
    boolean over = false;
    while (!exchange.closed() && !exchange.draining()) {
      List<E> events = feed.next(exchange.listen().heartbeat());
      over |= events.isEmpty();
      StringBuilder text = new StringBuilder();
      for (E entry : events) {
        Event event = envelope.of(entry);
        if (view.shows(event)) {
          append(text, ids.of(entry), event);
        }
        over |= lastPhase(event);
        if (view.endsAfter(event)) {
          exchange.write(Buffer.buffer(text.toString()));
          return;
        }
      }
      if (text.isEmpty()) {
        // A batch of which the view shows nothing is as good a moment for a heartbeat as silence. A
        // client that comes back need not go through it again: an id alone moves its cursor.
        text.append(events.isEmpty() ? HEARTBEAT : "id: " + ids.of(events.getLast()) + "\n\n");
      }
      exchange.write(Buffer.buffer(text.toString()));
      // Asking costs a look at the sandbox's row: not after each batch of a busy one.
      if (over && feed.finished()) {
        return;
      }
    }
  }

  /// Whether this is the sandbox's end.
  static boolean lastPhase(Event event) {
    if (!event.type().equals("sandbox.phase")) {
      return false;
    }
    String phase = event.data().path("phase").asText();
    return phase.equals(Phase.GONE.wireName()) || phase.equals(Phase.FAILED.wireName());
  }

  private static void append(StringBuilder text, String id, Event event) {
    text.append("id: ")
        .append(id)
        .append("\nevent: ")
        .append(event.type())
        .append("\ndata: ")
        .append(Json.write(Encode.event(event)))
        .append("\n\n");
  }
}
