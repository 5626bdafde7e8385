package dev.foredeck.server;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Id;
import dev.foredeck.core.Json;
import dev.foredeck.core.Operation;
import dev.foredeck.core.feed.Feeds;
import dev.foredeck.core.feed.Feeds.Feed;
import dev.foredeck.core.feed.Feeds.Place;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.ProvisionRequest;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.sandbox.Sandboxes;
import dev.foredeck.core.sandbox.Sandboxes.Provisioned;
import dev.foredeck.core.store.Event;
import dev.foredeck.server.EventStream.View;
import java.io.IOException;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// `/v1/sandboxes`: the one call that creates, runs and streams, and what a sandbox's log says.
final class SandboxDoor {
  private static final String SSE = "text/event-stream";

  private final Sandboxes sandboxes;
  private final Feeds feeds;
  private final CallDoor calls;
  private final Decode decode;
  private final Set<Feed<?>> open;

  SandboxDoor(Sandboxes sandboxes, Feeds feeds, CallDoor calls, Decode decode, Set<Feed<?>> open) {
    this.sandboxes = sandboxes;
    this.feeds = feeds;
    this.calls = calls;
    this.decode = decode;
    this.open = open;
  }

  /// `POST /v1/sandboxes`
  void create(Exchange exchange) throws Exception {
    ProvisionRequest request = decode.provision(exchange.json());
    Operation operation = exchange.operation();
    boolean stream = exchange.accepts(SSE);
    if (stream || request.run().isPresent()) {
      // Before anything is made: a server that is full refuses without a trace.
      exchange.slow();
    }
    if (stream) {
      try (Place place = feeds.reserve(operation)) {
        Provisioned made = create(exchange, operation, request);
        Feed<Event> feed = place.open(made.sandbox().id(), 0);
        new EventStream(exchange, open).follow(feed, whole(made));
      }
      return;
    }
    Provisioned made = create(exchange, operation, request);
    Sandbox sandbox = made.sandbox();
    if (made.call().isPresent()) {
      waitAndAnswer(exchange, operation, sandbox.id(), made.call().get());
    } else {
      exchange.header("Location", "/v1/sandboxes/" + sandbox.id());
      exchange.reply(201, Encode.sandbox(sandbox));
    }
  }

  private Provisioned create(Exchange exchange, Operation operation, ProvisionRequest request) {
    Provisioned made = sandboxes.create(operation, request);
    exchange.header("X-Foredeck-Sandbox", made.sandbox().id().value());
    return made;
  }

  private void waitAndAnswer(Exchange exchange, Operation operation, Id sandbox, Call call)
      throws IOException {
    Call ended = calls.awaitEnd(exchange, operation, call);
    ObjectNode json = Json.object();
    json.set("sandbox", Encode.sandbox(sandboxes.get(operation, sandbox)));
    json.set("call", calls.encode(operation, ended));
    json.set("outputs", calls.outputs(operation, ended));
    exchange.reply(200, json);
  }

  /// The sandbox's log from its first event: to the end of the call, and of the sandbox where it
  /// goes with the call; without a call until the sandbox is ready.
  private static View whole(Provisioned made) {
    Optional<Call> call = made.call();
    boolean toItsEnd = call.isPresent() && made.sandbox().destroyOnExit();
    return new View() {
      @Override
      public boolean shows(Event event) {
        return true;
      }

      @Override
      public boolean endsAfter(Event event) {
        if (EventStream.lastPhase(event) || (call.isEmpty() && ready(event))) {
          return true;
        }
        return !toItsEnd && call.isPresent() && CallDoor.endOf(event, call.get().id());
      }
    };
  }

  private static boolean ready(Event event) {
    return event.type().equals("sandbox.phase")
        && event.data().path("phase").asText().equals(Phase.READY.wireName());
  }

  /// `GET /v1/sandboxes`
  void list(Exchange exchange) throws Exception {
    int limit = limit(exchange);
    Map<String, String> labels = new HashMap<>();
    for (String label : exchange.queryAll("label")) {
      int equals = label.indexOf('=');
      if (equals < 1) {
        throw Exchange.invalid("query:label", "bad-value", "it is written label=key=value");
      }
      labels.put(label.substring(0, equals), label.substring(equals + 1));
    }
    if (labels.size() > exchange.limits().labels()) {
      throw Exchange.invalid(
          "query:label", "too-large", "there may be " + exchange.limits().labels() + " labels");
    }
    Optional<String> after = exchange.query("after");
    if (after.isPresent() && !Id.isValid(after.get())) {
      throw Exchange.invalid("query:after", "bad-value", "it is the id of a sandbox");
    }
    List<Sandbox> page =
        sandboxes.list(exchange.operation(), labels, phases(exchange), after.map(Id::new), limit);
    ObjectNode json = Json.object();
    ArrayNode list = json.putArray("sandboxes");
    page.forEach(sandbox -> list.add(Encode.sandbox(sandbox)));
    if (page.size() == limit) {
      json.put("next", page.getLast().id().value());
    }
    exchange.reply(200, json);
  }

  private static Set<Phase> phases(Exchange exchange) {
    Set<Phase> phases = EnumSet.noneOf(Phase.class);
    for (String list : exchange.queryAll("phase")) {
      for (String name : list.split(",", 16)) {
        Optional<Phase> phase =
            List.of(Phase.values()).stream().filter(p -> p.wireName().equals(name)).findFirst();
        phases.add(
            phase.orElseThrow(() ->
                Exchange.invalid(
                    "query:phase",
                    "bad-value",
                    "a phase is requested, starting, ready, paused, stopping, gone or failed")));
      }
    }
    return phases;
  }

  static int limit(Exchange exchange) {
    int most = exchange.limits().pageSize();
    return (int) exchange.queryLong("limit", most, 1, most);
  }

  /// `GET /v1/sandboxes/{id}`
  void get(Exchange exchange) throws Exception {
    exchange.reply(200, Encode.sandbox(sandboxes.get(exchange.operation(), exchange.id())));
  }

  /// `PATCH /v1/sandboxes/{id}`
  void patch(Exchange exchange) throws Exception {
    Id id = exchange.id();
    Decode.Patch patch = decode.patch(exchange.json());
    Sandbox sandbox = sandboxes.patch(exchange.operation(), id, patch.ttl(), patch.labels());
    exchange.reply(200, Encode.sandbox(sandbox));
  }

  /// `DELETE /v1/sandboxes/{id}`: asks for its end, and does not wait for it.
  void destroy(Exchange exchange) throws Exception {
    Sandbox sandbox = sandboxes.destroy(exchange.operation(), exchange.id());
    exchange.reply(sandbox.phase().terminal() ? 200 : 202, Encode.sandbox(sandbox));
  }

  /// `GET /v1/sandboxes/{id}/events`
  void events(Exchange exchange) throws Exception {
    Id id = exchange.id();
    Operation operation = exchange.operation();
    long after = after(exchange);
    if (exchange.accepts(SSE)) {
      exchange.slow();
      Feed<Event> feed = feeds.open(operation, id, after);
      new EventStream(exchange, open).follow(feed, View.EVERYTHING);
      return;
    }
    ObjectNode json = Json.object();
    ArrayNode events = json.putArray("events");
    feeds.page(operation, id, after, limit(exchange)).forEach(e -> events.add(Encode.event(e)));
    exchange.reply(200, json);
  }

  /// A browser that comes back says `Last-Event-ID`, which is later than what its URL says.
  private static long after(Exchange exchange) {
    long after = exchange.queryLong("after", 0, 0, Long.MAX_VALUE / 16);
    Optional<String> last = exchange.header("Last-Event-ID");
    if (last.isEmpty() || last.get().isEmpty()) {
      return after;
    }
    if (!last.get().matches("[0-9]{1,17}")) {
      throw Exchange.invalid("header:Last-Event-ID", "bad-value", "it is the seq of an event");
    }
    return Long.parseLong(last.get());
  }
}
