package dev.foredeck.server;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Json;
import dev.foredeck.core.ProblemException;
import dev.foredeck.core.feed.Feeds.Feed;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.store.Event;
import io.vertx.core.buffer.Buffer;
import java.io.IOException;
import java.util.List;
import java.util.Set;

/// Writes a feed as server-sent events. One virtual thread per feed reads the next batch only when
/// the client has taken the one before, so that a client that does not read costs one batch of
/// memory, and, after [Listen#stall], nothing: it comes back with `Last-Event-ID`.
final class EventStream {
  private static final String HEARTBEAT = ":\n\n";

  /// What a client wants to see of a feed.
  interface View {
    boolean shows(Event event);

    /// Whether the stream ends after this event.
    boolean endsAfter(Event event);
  }

  private final Exchange exchange;
  private final Set<Feed> open;

  /// @param open the server's open feeds, closed when it stops
  EventStream(Exchange exchange, Set<Feed> open) {
    this.exchange = exchange;
    this.open = open;
  }

  /// Until the view says so, the log is at its end, the client goes or the server stops.
  void follow(Feed feed, View view) throws IOException, InterruptedException {
    exchange.onClose(feed::close);
    open.add(feed);
    try (feed) {
      exchange.header("X-Accel-Buffering", "no");
      exchange.beginStream(200, "text/event-stream", -1);
      exchange.write(Buffer.buffer("retry: 1000\n\n"));
      pump(feed, view);
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

  private void pump(Feed feed, View view) throws IOException, InterruptedException {
    boolean over = false;
    while (!exchange.closed() && !exchange.draining()) {
      List<Event> events = feed.next(exchange.listen().heartbeat());
      over |= events.isEmpty();
      StringBuilder text = new StringBuilder();
      for (Event event : events) {
        if (view.shows(event)) {
          append(text, event);
        }
        over |= lastPhase(event);
        if (view.endsAfter(event)) {
          exchange.write(Buffer.buffer(text.toString()));
          return;
        }
      }
      // A batch of which the view shows nothing is as good a moment for a heartbeat as silence.
      exchange.write(Buffer.buffer(text.isEmpty() ? HEARTBEAT : text.toString()));
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

  private static void append(StringBuilder text, Event event) {
    text.append("id: ")
        .append(event.seq())
        .append("\nevent: ")
        .append(event.type())
        .append("\ndata: ")
        .append(Json.write(Encode.event(event)))
        .append("\n\n");
  }
}
