package dev.foredeck.server;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Events;
import dev.foredeck.core.Json;
import dev.foredeck.core.Operation;
import dev.foredeck.core.feed.Feeds;
import dev.foredeck.core.feed.Feeds.Feed;
import dev.foredeck.core.feed.Feeds.TenantLogPage;
import dev.foredeck.core.store.TenantCursor;
import dev.foredeck.server.EventStream.View;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;

/// `/v1/events`: what happens in all sandboxes of a tenant.
final class TenantDoor {
  private static final String SSE = "text/event-stream";
  private static final String LATEST = "latest";

  private final Feeds feeds;
  private final Set<Feed<?>> open;

  TenantDoor(Feeds feeds, Set<Feed<?>> open) {
    this.feeds = feeds;
    this.open = open;
  }

  /// `GET /v1/events`
  void events(Exchange exchange) throws Exception {
    Operation operation = exchange.operation();
    Set<String> types = types(exchange);
    Optional<TenantCursor> after = after(exchange, operation);
    if (exchange.accepts(SSE)) {
      exchange.slow();
      View view =
          types.isEmpty() ? View.EVERYTHING : View.of(event -> types.contains(event.type()));
      new EventStream(exchange, open).followTenant(feeds.openTenant(operation, after), view);
      return;
    }
    TenantLogPage page = feeds.tenantPage(operation, after, types, SandboxDoor.limit(exchange));
    ObjectNode json = Json.object();
    ArrayNode events = json.putArray("events");
    page.events().forEach(event -> events.add(Encode.event(event.event())));
    page.next().ifPresent(cursor -> json.put("next", cursor.text()));
    exchange.reply(200, json);
  }

  private static Set<String> types(Exchange exchange) {
    Set<String> types = new TreeSet<>();
    for (String list : exchange.queryAll("type")) {
      for (String type : list.split(",", 32)) {
        if (!Events.TYPES.contains(type)) {
          throw Exchange.invalid(
              "query:type",
              "bad-value",
              "there are the types " + String.join(", ", new TreeSet<>(Events.TYPES)));
        }
        types.add(type);
      }
    }
    return types;
  }

  /// A browser that comes back says `Last-Event-ID`, which is later than what its URL says.
  private Optional<TenantCursor> after(Exchange exchange, Operation operation) {
    Optional<String> last = exchange.header("Last-Event-ID").filter(id -> !id.isEmpty());
    if (last.isPresent()) {
      return Optional.of(cursor("header:Last-Event-ID", last.get()));
    }
    Optional<String> after = exchange.query("after");
    if (after.isPresent() && after.get().equals(LATEST)) {
      return feeds.last(operation);
    }
    return after.map(text -> cursor("query:after", text));
  }

  private static TenantCursor cursor(String pointer, String text) {
    return TenantCursor.parse(text)
        .orElseThrow(() ->
            Exchange.invalid(
                pointer,
                "bad-value",
                "it is an `id` of this feed or the `next` of a page, as they came; or, in the"
                    + " query, `latest`"));
  }
}
