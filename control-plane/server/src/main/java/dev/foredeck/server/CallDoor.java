package dev.foredeck.server;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Id;
import dev.foredeck.core.Json;
import dev.foredeck.core.Operation;
import dev.foredeck.core.Problem;
import dev.foredeck.core.ProblemException;
import dev.foredeck.core.feed.Feeds;
import dev.foredeck.core.feed.Feeds.Feed;
import dev.foredeck.core.feed.Feeds.Place;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.Calls;
import dev.foredeck.core.gate.Calls.Output;
import dev.foredeck.core.gate.Calls.OutputPage;
import dev.foredeck.core.gate.ToolCall;
import dev.foredeck.core.store.Event;
import dev.foredeck.protocol.Channel;
import dev.foredeck.server.EventStream.View;
import io.vertx.core.buffer.Buffer;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/// `/v1/sandboxes/{id}/calls` and `/v1/calls`: tools of the gate, their output and their end.
final class CallDoor {
  private static final String SSE = "text/event-stream";

  /// How long one look lasts while an answer waits: a client that went is noticed after that.
  private static final Duration LOOK = Duration.ofSeconds(5);

  private final Calls calls;
  private final Feeds feeds;
  private final Decode decode;
  private final Set<Feed<?>> open;

  CallDoor(Calls calls, Feeds feeds, Decode decode, Set<Feed<?>> open) {
    this.calls = calls;
    this.feeds = feeds;
    this.decode = decode;
    this.open = open;
  }

  /// `POST /v1/sandboxes/{id}/calls`
  void start(Exchange exchange) throws Exception {
    Id sandbox = exchange.id();
    Decode.Asked asked = decode.call(exchange.json());
    if (asked.call() instanceof ToolCall.Run run) {
      run(exchange, sandbox, run, asked);
      return;
    }
    ObjectNode answer = Json.object().put("tool", asked.call().tool());
    answer.set("result", tool(exchange.operation(), sandbox, asked));
    exchange.reply(200, answer);
  }

  private void run(Exchange exchange, Id sandbox, ToolCall.Run run, Decode.Asked asked)
      throws Exception {
    Operation operation = exchange.operation();
    boolean stream = exchange.accepts(SSE);
    if (stream || !asked.background()) {
      exchange.slow();
    }
    if (stream) {
      try (Place place = feeds.reserve(operation)) {
        Id call = calls.start(operation, sandbox, run, asked.background(), asked.outputs()).id();
        new EventStream(exchange, open).follow(place.openCall(sandbox, call), only(call));
      }
      return;
    }
    Call call = calls.start(operation, sandbox, run, asked.background(), asked.outputs());
    ObjectNode json = Json.object();
    if (asked.background()) {
      exchange.header("Location", "/v1/calls/" + call.id());
      json.set("call", encode(operation, call));
      exchange.reply(202, json);
      return;
    }
    Call ended = awaitEnd(exchange, operation, call);
    json.set("call", encode(operation, ended));
    json.set("outputs", outputs(operation, ended));
    exchange.reply(200, json);
  }

  /// Tools that are done when they answer.
  private ObjectNode tool(Operation operation, Id sandbox, Decode.Asked asked) throws IOException {
    return switch (asked.call()) {
      case ToolCall.Run run -> throw new IllegalStateException(run.tool() + " is not done at once");
      case ToolCall.ProcessSignal signal -> {
        ownCall(operation, sandbox, signal.call());
        calls.signal(operation, signal.call(), signal.signal());
        yield Json.object();
      }
      case ToolCall.FileRead read -> read(operation, sandbox, read);
      case ToolCall.FileWrite write -> {
        byte[] bytes = asked.content().orElse(new byte[0]);
        yield Encode.file(
            calls.writeFile(
                operation, sandbox, write.path(), bytes.length, new ByteArrayInputStream(bytes)));
      }
      case ToolCall.FileList list ->
          Encode.listing(calls.listFiles(operation, sandbox, list.path(), list.depth()));
      case ToolCall.FileStat stat -> Encode.file(calls.statFile(operation, sandbox, stat.path()));
      case ToolCall.FileMove move -> {
        calls.moveFile(operation, sandbox, move.path(), move.target());
        yield Json.object();
      }
      case ToolCall.FileRemove remove -> {
        calls.removeFile(operation, sandbox, remove.path(), remove.recursive());
        yield Json.object();
      }
    };
  }

  /// The call must be one of the sandbox in the URL: an id of another sandbox is not found there.
  private void ownCall(Operation operation, Id sandbox, Id call) {
    if (!calls.get(operation, call).sandbox().equals(sandbox)) {
      throw new ProblemException(
          new Problem.NotFound("call-not-found", "this sandbox has no call " + call));
    }
  }

  /// The beginning of a file; the whole of a large one is for `GET .../files/{path}`.
  private ObjectNode read(Operation operation, Id sandbox, ToolCall.FileRead read)
      throws IOException {
    int most = decode.readBytes();
    Calls.Download download = calls.readFile(operation, sandbox, read.path());
    try (InputStream content = download.content()) {
      byte[] bytes = content.readNBytes(most);
      ObjectNode json = Encode.file(download.info());
      Encode.textOrBase64(json, "content", "base64", bytes);
      return json.put("truncated", bytes.length == most && content.read() >= 0);
    }
  }

  /// `GET /v1/calls/{id}`
  void get(Exchange exchange) throws Exception {
    Operation operation = exchange.operation();
    Call call = calls.get(operation, exchange.id());
    ObjectNode json = encode(operation, call);
    json.set("outputs", outputs(operation, call));
    exchange.reply(200, json);
  }

  /// `POST /v1/calls/{id}/stdin`
  void stdin(Exchange exchange) throws Exception {
    Id id = exchange.id();
    Decode.Stdin stdin = decode.stdin(exchange.json());
    // It waits while the process does not read.
    exchange.slow();
    long accepted =
        calls.stdin(exchange.operation(), id, stdin.offset(), stdin.bytes(), stdin.end());
    exchange.reply(200, Json.object().put("accepted", accepted));
  }

  /// `POST /v1/calls/{id}/signal`
  void signal(Exchange exchange) throws Exception {
    Id id = exchange.id();
    String signal = decode.signal(exchange.json());
    Operation operation = exchange.operation();
    calls.signal(operation, id, signal);
    exchange.reply(200, encode(operation, calls.get(operation, id)));
  }

  /// `POST /v1/calls/{id}/resize`: of terminals, which do not exist yet.
  void resize(Exchange exchange) {
    calls.get(exchange.operation(), exchange.id());
    throw Exchange.invalid("", "not-supported", "a call has no terminal yet that could be resized");
  }

  /// `POST /v1/calls/{id}/cancel`
  void cancel(Exchange exchange) throws Exception {
    Id id = exchange.id();
    decode.empty(exchange.json());
    Operation operation = exchange.operation();
    exchange.reply(200, encode(operation, calls.cancel(operation, id)));
  }

  /// `GET /v1/calls/{id}/output`: the recorded bytes of a channel from an offset on.
  void output(Exchange exchange) throws Exception {
    Id id = exchange.id();
    Operation operation = exchange.operation();
    Channel channel = channel(exchange.query("channel").orElse("stdout"));
    long offset = exchange.queryLong("offset", 0, 0, Long.MAX_VALUE / 16);
    long limit = exchange.queryLong("limit", Long.MAX_VALUE / 16, 0, Long.MAX_VALUE / 16);
    int pageBytes = exchange.limits().resultTailBytes();
    OutputPage page =
        calls.output(operation, id, channel, offset, (int) Math.min(limit, pageBytes));
    long length = Math.max(0, Math.min(limit, page.recorded() - offset));
    exchange.header("X-Foredeck-Offset", Long.toString(offset));
    exchange.header("X-Foredeck-Recorded", Long.toString(page.recorded()));
    exchange.header("X-Foredeck-Total", Long.toString(page.total()));
    exchange.header("X-Foredeck-Ended", Boolean.toString(page.ended()));
    untrusted(exchange);
    exchange.beginStream(200, "application/octet-stream", length);
    long sent = 0;
    while (sent < length) {
      int take = (int) Math.min(page.bytes().length, length - sent);
      if (take == 0) {
        // Retention took the rest meanwhile: the promised length cannot be kept.
        exchange.cut();
        return;
      }
      exchange.write(Buffer.buffer(page.bytes()).slice(0, take));
      sent += take;
      if (sent < length) {
        int next = (int) Math.min(length - sent, pageBytes);
        page = calls.output(operation, id, channel, offset + sent, next);
      }
    }
    exchange.end();
  }

  /// `GET /v1/calls/{id}/outputs/{path}`: a file that was copied out.
  void outputFile(Exchange exchange) throws Exception {
    String path = exchange.path(false);
    byte[] bytes = calls.outputFile(exchange.operation(), exchange.id(), path);
    untrusted(exchange);
    exchange.send(200, "application/octet-stream", bytes);
  }

  /// Bytes that a sandbox made must never run as a page of this origin.
  static void untrusted(Exchange exchange) {
    exchange.header("Content-Disposition", "attachment");
    exchange.header("Content-Security-Policy", "default-src 'none'; sandbox");
  }

  // ---- what other doors need of calls

  /// Waits for the call's end: its own timeout bounds it, and the sandbox's life after all.
  Call awaitEnd(Exchange exchange, Operation operation, Call begun) throws IOException {
    Call call = begun;
    while (!call.status().ended()) {
      exchange.stillWanted();
      call = calls.awaitEnd(operation, call, LOOK);
    }
    return call;
  }

  ObjectNode encode(Operation operation, Call call) {
    boolean more = !call.status().ended();
    return Encode.call(
        call,
        tail(operation, call.id(), Channel.STDOUT, call.stdoutBytes(), more),
        tail(operation, call.id(), Channel.STDERR, call.stderrBytes(), more));
  }

  /// @param written committed offset; where output was skipped, less is recorded
  private Encode.Tail tail(
      Operation operation, Id call, Channel channel, long written, boolean more) {
    int most = decode.readBytes();
    if (written == 0) {
      return new Encode.Tail(new byte[0], false, more);
    }
    long from = Math.max(0, written - most);
    OutputPage page = calls.output(operation, call, channel, from, most);
    if (page.recorded() < written && from > 0) {
      from = Math.max(0, page.recorded() - most);
      page = calls.output(operation, call, channel, from, most);
    }
    long end = Math.min(page.recorded(), from + most);
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    bytes.writeBytes(page.bytes());
    while (from + bytes.size() < end && page.bytes().length > 0) {
      int left = (int) (end - from - bytes.size());
      page = calls.output(operation, call, channel, from + bytes.size(), left);
      bytes.writeBytes(page.bytes());
    }
    boolean cutTail = more || page.recorded() < written;
    return new Encode.Tail(bytes.toByteArray(), from > 0, cutTail);
  }

  ArrayNode outputs(Operation operation, Call call) {
    ArrayNode list = Json.object().putArray("outputs");
    if (call.outputs().isEmpty()) {
      return list;
    }
    List<Output> outputs = calls.outputs(operation, call.id());
    for (Output output : outputs) {
      boolean inline =
          output.missing().isEmpty() && output.sizeBytes() <= decode.inlineOutputBytes();
      Optional<byte[]> bytes =
          inline
              ? Optional.of(calls.outputFile(operation, call.id(), output.path()))
              : Optional.empty();
      list.add(Encode.output(call.id(), output, bytes));
    }
    return list;
  }

  /// A call's outputs are in the log before its end is.
  static boolean endOf(Event event, Id call) {
    return event.type().equals("call.ended") && event.call().filter(call::equals).isPresent();
  }

  private static View only(Id call) {
    return new View() {
      @Override
      public boolean shows(Event event) {
        return event.call().filter(call::equals).isPresent();
      }

      @Override
      public boolean endsAfter(Event event) {
        return endOf(event, call);
      }
    };
  }

  private static Channel channel(String name) {
    return switch (name) {
      case "stdout" -> Channel.STDOUT;
      case "stderr" -> Channel.STDERR;
      case "pty" ->
          throw Exchange.invalid("query:channel", "not-supported", "a call has no terminal yet");
      default ->
          throw Exchange.invalid("query:channel", "bad-value", "a channel is stdout or stderr");
    };
  }
}
