package dev.foredeck.server;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Hashes;
import dev.foredeck.core.Id;
import dev.foredeck.core.Json;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Operation;
import dev.foredeck.core.Operation.Idempotency;
import dev.foredeck.core.Principal;
import dev.foredeck.core.Problem;
import dev.foredeck.core.ProblemException;
import dev.foredeck.core.Role;
import io.vertx.core.Context;
import io.vertx.core.Future;
import io.vertx.core.buffer.Buffer;
import io.vertx.core.http.HttpServerRequest;
import io.vertx.core.http.HttpServerResponse;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;

/// One request and its answer, as a handler on a virtual thread sees them: everything blocks, and a
/// write waits while the client does not read.
///
/// Threading: made on the event loop; then owned by one virtual thread. Only `closed` is touched by
/// both.
final class Exchange {
  private static final int SLICE = 64 * 1024;

  /// A client that is refused while it sends hears of it only when it has sent the rest.
  private static final int DISCARD = 16 * 1024 * 1024;

  /// Bodies of which as many as there may be requests do no harm.
  private static final int SMALL_BODY = 16 * 1024;

  private final Edge edge;
  private final HttpServerRequest request;
  private final HttpServerResponse response;
  private final Route route;
  private final Map<String, String> parameters;
  private final String trace;
  private final RequestBody upload;
  private final AtomicReference<@Nullable Runnable> onClose = new AtomicReference<>();
  private volatile boolean closed;
  private @Nullable Principal principal;
  private final BodyMemory.Part memory;
  private byte[] body = new byte[0];
  private String bodyHash = "";
  private Map<String, List<String>> query = Map.of();
  private @Nullable Future<Void> lastWrite;
  private @Nullable Semaphore permit;
  private boolean slow;

  /// What all exchanges of a server share.
  interface Edge {
    Limits limits();

    Listen listen();

    JsonBody json();

    BodyMemory bodies();

    /// Admits what waits for long: feeds, and answers that wait for a call.
    Semaphore slow();

    boolean draining();
  }

  /// The client is gone: there is nobody to answer.
  static final class ClientGoneException extends IOException {
    private static final long serialVersionUID = 1L;

    ClientGoneException(String message) {
      super(message);
    }
  }

  Exchange(
      Edge edge,
      HttpServerRequest request,
      Context context,
      Route route,
      Map<String, String> parameters,
      String trace,
      Semaphore permit) {
    this.edge = edge;
    this.request = request;
    this.response = request.response();
    this.route = route;
    this.parameters = Map.copyOf(parameters);
    this.trace = trace;
    this.permit = permit;
    this.memory = edge.bodies().part();
    long limit =
        route.body() == Route.Body.RAW ? edge.limits().uploadBytes() : edge.limits().bodyBytes();
    this.upload = new RequestBody(request, context, limit, edge.listen().body());
  }

  /// On the event loop: hears of the client's going from here on.
  void attach() {
    upload.attach();
    response.exceptionHandler(_ -> close());
    response.closeHandler(_ -> close());
  }

  Route route() {
    return route;
  }

  String trace() {
    return trace;
  }

  Limits limits() {
    return edge.limits();
  }

  Listen listen() {
    return edge.listen();
  }

  // ---- who asks

  /// @param keys asked on this thread: it may look into the database
  void authenticate(dev.foredeck.core.Keys keys) {
    if (route.access() == Route.Access.OPEN) {
      return;
    }
    List<String> headers = request.headers().getAll("Authorization");
    String header = headers.size() == 1 ? headers.getFirst() : "";
    if (!header.regionMatches(true, 0, "Bearer ", 0, 7)) {
      throw new ProblemException(new Problem.Unauthenticated("no key"));
    }
    Principal who = keys.authenticate(header.substring(7).strip());
    if (route.access() == Route.Access.OPERATOR && who.role() != Role.OPERATOR) {
      throw new ProblemException(
          new Problem.Forbidden(
              route.name()
                  + " needs a key of role operator; this one has role "
                  + who.role().wireName()));
    }
    principal = who;
  }

  /// Who asks, and under which idempotency key. After the body was read: the key covers it.
  Operation operation() {
    Principal who = principal;
    if (who == null) {
      throw new IllegalStateException("an open route has no operation");
    }
    if (!route.method().equals("POST")) {
      return new Operation(who, trace, Optional.empty());
    }
    List<String> keys = request.headers().getAll("Idempotency-Key");
    if (keys.isEmpty()) {
      return new Operation(who, trace, Optional.empty());
    }
    String key = keys.getFirst();
    if (keys.size() > 1
        || key.isEmpty()
        || key.length() > 255
        || !key.chars().allMatch(c -> c > 0x20 && c < 0x7f)) {
      throw invalid(
          "header:Idempotency-Key",
          "bad-value",
          "it must be 1 to 255 visible ASCII characters, once");
    }
    return new Operation(
        who, trace, Optional.of(new Idempotency("POST " + request.path(), key, asked())));
  }

  // ---- what was asked

  /// The hash of all that tells two requests of a route apart: its query is as much a part of it as
  /// its body.
  private String asked() {
    return request.query() == null ? bodyHash : Hashes.sha256(request.query() + "\n" + bodyHash);
  }

  /// Reads query and, where the route has one, the JSON body.
  void readAhead() throws IOException {
    query = parseQuery();
    switch (route.body()) {
      case NONE, RAW -> {}
      case JSON, OPTIONAL_JSON -> {
        body = readBody();
        if (request.headers().contains("Idempotency-Key")) {
          bodyHash = Hashes.sha256(body);
        }
      }
    }
  }

  /// The body as a JSON object. Once: the bytes are let go.
  ObjectNode json() {
    byte[] bytes = body;
    body = new byte[0];
    if (bytes.length == 0) {
      if (route.body() == Route.Body.OPTIONAL_JSON) {
        return Json.object();
      }
      throw invalid("", "missing-body", "the body is empty; send a JSON object, at least `{}`");
    }
    return edge.json().parse(bytes);
  }

  /// The body as it comes.
  InputStream upload() {
    declared(edge.limits().uploadBytes(), "file-too-large");
    expectNoEncoding();
    take(Math.min(RequestBody.WINDOW, uploadLength() < 0 ? RequestBody.WINDOW : uploadLength()));
    continueBody();
    return upload;
  }

  /// As declared, or -1.
  long uploadLength() {
    String length = request.headers().get("Content-Length");
    return length == null ? -1 : Long.parseLong(length);
  }

  /// An id in the path. One that cannot be an id names nothing.
  Id id() {
    String raw = parameters.getOrDefault("id", "");
    if (!Id.isValid(raw)) {
      throw new ProblemException(
          new Problem.NotFound("not-found", "there is nothing with this id"));
    }
    return new Id(raw);
  }

  /// The workspace path at the end of the URL.
  String path(boolean root) {
    return WorkspacePath.fromUrl(parameters.getOrDefault("path", "."), root);
  }

  Optional<String> query(String name) {
    List<String> values = query.getOrDefault(name, List.of());
    if (values.size() > 1) {
      throw invalid("query:" + name, "bad-value", "it is there more than once");
    }
    return values.stream().findFirst();
  }

  List<String> queryAll(String name) {
    return query.getOrDefault(name, List.of());
  }

  long queryLong(String name, long otherwise, long min, long max) {
    Optional<String> text = query(name);
    if (text.isEmpty()) {
      return otherwise;
    }
    if (!text.get().matches("[0-9]{1,18}")
        || Long.parseLong(text.get()) < min
        || Long.parseLong(text.get()) > max) {
      throw invalid(
          "query:" + name, "bad-value", "it must be a whole number from " + min + " to " + max);
    }
    return Long.parseLong(text.get());
  }

  /// `?list`, `?list=1` and `?list=true` say yes.
  boolean queryFlag(String name) {
    Optional<String> text = query(name);
    if (text.isEmpty()) {
      return false;
    }
    return switch (text.get()) {
      case "", "1", "true" -> true;
      case "0", "false" -> false;
      default -> throw invalid("query:" + name, "bad-value", "it must be 1 or 0");
    };
  }

  Optional<String> header(String name) {
    return Optional.ofNullable(request.headers().get(name));
  }

  /// Whether the client named this media type, and with a weight above zero.
  boolean accepts(String mediaType) {
    for (String header : request.headers().getAll("Accept")) {
      for (String range : header.split(",", 64)) {
        String[] parts = range.strip().toLowerCase(Locale.ROOT).split(";", 8);
        boolean refused = false;
        for (int i = 1; i < parts.length; i++) {
          refused |= parts[i].strip().matches("q=0(\\.0*)?");
        }
        if (parts[0].strip().equals(mediaType) && !refused) {
          return true;
        }
      }
    }
    return false;
  }

  static ProblemException invalid(String pointer, String code, String message) {
    return new ProblemException(Problem.Invalid.of(pointer, code, message));
  }

  // ---- waiting

  /// From here on the request may take long: it leaves the requests in work and joins the feeds, so
  /// that those who wait do not keep those who work out.
  void slow() {
    if (slow) {
      return;
    }
    if (!edge.slow().tryAcquire()) {
      throw new ProblemException(
          new Problem.Capacity(
              "feed-quota",
              "this server has " + limits().feeds() + " feeds and waiting answers",
              Duration.ofSeconds(5)));
    }
    Semaphore held = permit;
    if (held != null) {
      held.release();
    }
    permit = edge.slow();
    slow = true;
  }

  /// To be called between two slices of waiting.
  void stillWanted() throws ClientGoneException {
    memory.giveBack();
    if (closed) {
      throw new ClientGoneException("the client went away while it waited");
    }
    if (edge.draining()) {
      throw new ProblemException(
          new Problem.Unavailable(
              "shutting-down",
              "this server stops; nothing is lost: ask again, with the same Idempotency-Key",
              Duration.ofSeconds(2)));
    }
  }

  boolean draining() {
    return edge.draining();
  }

  boolean closed() {
    return closed;
  }

  /// Runs `action` when the client goes, at once if it is gone.
  void onClose(Runnable action) {
    onClose.set(action);
    if (closed) {
      runOnClose();
    }
  }

  // ---- the answer

  void header(String name, String value) {
    response.putHeader(name, value);
  }

  void reply(int status, JsonNode json) throws IOException {
    send(status, "application/json", Json.write(json).getBytes(StandardCharsets.UTF_8));
  }

  void noContent() {
    begin(204);
    response.end();
  }

  void send(int status, String type, byte[] bytes) throws IOException {
    begin(status);
    response.putHeader("Content-Type", type);
    response.putHeader("Content-Length", Integer.toString(bytes.length));
    if (request.method().name().equals("HEAD")) {
      response.end();
      return;
    }
    Buffer all = Buffer.buffer(bytes);
    for (int from = 0; from < bytes.length; from += SLICE) {
      write(all.slice(from, Math.min(bytes.length, from + SLICE)));
    }
    response.end();
  }

  /// @param length of the whole body; -1 when it is not known
  void beginStream(int status, String type, long length) {
    memory.giveBack();
    begin(status);
    response.putHeader("Content-Type", type);
    if (length >= 0) {
      response.putHeader("Content-Length", Long.toString(length));
    } else {
      response.setChunked(true);
    }
  }

  /// Waits while the client does not read; a client that reads nothing for [Listen#stall] is cut
  /// off.
  void write(Buffer buffer) throws IOException {
    if (closed) {
      throw new ClientGoneException("the client went away");
    }
    Future<Void> write = response.write(buffer);
    Future<Void> before = lastWrite;
    lastWrite = write;
    if (before != null && response.writeQueueFull()) {
      await(before);
      if (response.writeQueueFull()) {
        await(write);
      }
    }
  }

  /// Ends a streamed answer.
  void end() {
    response.end();
  }

  boolean begun() {
    return response.headWritten();
  }

  /// Answers with a problem; when an answer has already begun, the connection is cut instead, so
  /// that nobody takes half of it for the whole.
  void answer(Answer answer) {
    RequestBody.End end = upload.end();
    Answer said =
        switch (end) {
          case NONE, DISCONNECTED -> answer;
          case TOO_LARGE -> Answer.of(tooLarge());
          case SLOW -> Answer.slowBody();
        };
    if (end == RequestBody.End.DISCONNECTED || response.headWritten() || response.ended()) {
      request.connection().close();
      return;
    }
    said.headers().forEach(response::putHeader);
    response.headers().remove("Content-Length");
    try {
      send(
          said.status(),
          "application/problem+json",
          Json.write(said.json(trace)).getBytes(StandardCharsets.UTF_8));
    } catch (IOException _) {
      request.connection().close();
    }
  }

  void cut() {
    request.connection().close();
  }

  /// After the answer: gives the permit back and lets go of what the client still sends.
  void finish(Context context) {
    Semaphore held = permit;
    permit = null;
    if (held != null) {
      held.release();
    }
    memory.giveBack();
    upload.abandon();
    if (!upload.complete()) {
      context.runOnContext(_ -> discard(request));
    }
  }

  /// Reads on for a while instead of closing at once: closing over unread bytes resets the
  /// connection and takes the answer with it.
  static void discard(HttpServerRequest request) {
    if (request.isEnded()) {
      return;
    }
    long[] left = {DISCARD};
    request.handler(buffer -> {
      left[0] -= buffer.length();
      if (left[0] < 0) {
        request.connection().close();
      }
    });
    request.exceptionHandler(_ -> {});
    request.endHandler(_ -> {});
    request.resume();
  }

  /// Whether the client's body ended before its time.
  boolean bodyBroke() {
    return upload.end() != RequestBody.End.NONE;
  }

  private void begin(int status) {
    response.setStatusCode(status);
    response.putHeader("X-Foredeck-Trace", trace);
    response.putHeader("X-Content-Type-Options", "nosniff");
    response.putHeader("Cache-Control", "no-store");
  }

  private void await(Future<Void> write) throws IOException {
    try {
      write
          .toCompletionStage()
          .toCompletableFuture()
          .get(listen().stall().toMillis(), TimeUnit.MILLISECONDS);
    } catch (TimeoutException _) {
      request.connection().close();
      throw new ClientGoneException("the client has read nothing for " + listen().stall());
    } catch (ExecutionException _) {
      throw new ClientGoneException("the client went away");
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted while writing", e);
    }
  }

  private void close() {
    closed = true;
    runOnClose();
  }

  private void runOnClose() {
    Runnable action = onClose.getAndSet(null);
    if (action != null) {
      // It may block, and this is the event loop.
      Thread.ofVirtual().name("on-close-" + trace).start(action);
    }
  }

  // ---- reading

  private byte[] readBody() throws IOException {
    declared(edge.limits().bodyBytes(), "body-too-large");
    expectNoEncoding();
    continueBody();
    int declared = (int) uploadLength();
    take(declared);
    byte[] bytes = new byte[declared < 0 ? SMALL_BODY : declared];
    int length = 0;
    long start = System.nanoTime();
    while (declared < 0 || length < declared) {
      if (length == bytes.length) {
        int more = Math.min(2 * length, edge.limits().bodyBytes() + 1);
        take(more);
        bytes = Arrays.copyOf(bytes, more);
      }
      int n = upload.read(bytes, length, bytes.length - length);
      if (n < 0) {
        break;
      }
      length += n;
      if (System.nanoTime() - start > listen().body().toNanos()) {
        throw Answer.slowBody().exception();
      }
    }
    if (length > 0) {
      expectJson();
    }
    return length == bytes.length ? bytes : Arrays.copyOf(bytes, length);
  }

  /// Room for a body, or for what of it is in memory at once.
  private void take(long bytes) {
    if (bytes > SMALL_BODY && !memory.take(bytes)) {
      throw new ProblemException(
          new Problem.Capacity(
              "busy",
              "the bodies of the requests that this server works on take as much memory as they"
                  + " may",
              Duration.ofSeconds(1)));
    }
  }

  private void declared(long limit, String code) {
    String length = request.headers().get("Content-Length");
    if (length == null) {
      return;
    }
    if (!length.matches("[0-9]{1,18}")) {
      throw Answer.malformed("Content-Length is not a number").exception();
    }
    if (Long.parseLong(length) > limit) {
      throw new ProblemException(
          new Problem.TooLarge(code, "the body may have " + limit + " bytes, not " + length));
    }
  }

  private Problem.TooLarge tooLarge() {
    return route.body() == Route.Body.RAW
        ? new Problem.TooLarge(
            "file-too-large", "the body may have " + limits().uploadBytes() + " bytes")
        : new Problem.TooLarge(
            "body-too-large", "the body may have " + limits().bodyBytes() + " bytes");
  }

  private void continueBody() {
    if (header("Expect").filter(value -> value.equalsIgnoreCase("100-continue")).isPresent()) {
      response.writeContinue();
    }
  }

  private void expectNoEncoding() {
    Optional<String> encoding = header("Content-Encoding");
    if (encoding.isPresent() && !encoding.get().equalsIgnoreCase("identity")) {
      throw Answer.wrongContentType("Content-Encoding: " + printable(encoding.get())).exception();
    }
  }

  private void expectJson() {
    String type = header("Content-Type").orElse("");
    String[] parts = type.toLowerCase(Locale.ROOT).split(";", 8);
    boolean json = parts[0].strip().equals("application/json");
    for (int i = 1; i < parts.length; i++) {
      String parameter = parts[i].strip().replace("\"", "");
      json &= !parameter.startsWith("charset=") || parameter.equals("charset=utf-8");
    }
    if (!json) {
      throw Answer.wrongContentType(type.isEmpty() ? "nothing" : printable(type)).exception();
    }
  }

  private static String printable(String text) {
    return text.substring(0, Math.min(64, text.length())).replaceAll("[^\\x20-\\x7e]", "?");
  }

  private Map<String, List<String>> parseQuery() {
    String raw = request.query();
    Map<String, List<String>> values = new LinkedHashMap<>();
    if (raw == null || raw.isEmpty()) {
      return values;
    }
    for (String pair : raw.split("&", 128)) {
      int equals = pair.indexOf('=');
      String name = decoded(equals < 0 ? pair : pair.substring(0, equals));
      if (!route.query().contains(name)) {
        throw invalid(
            "query:" + printable(name),
            "unknown-field",
            Fields.unknown("query parameter", printable(name), route.query()));
      }
      values
          .computeIfAbsent(name, _ -> new ArrayList<>())
          .add(equals < 0 ? "" : decoded(pair.substring(equals + 1)));
    }
    return values;
  }

  private static String decoded(String raw) {
    String text =
        WorkspacePath.percentDecoded(raw.replace("+", "%20"))
            .orElseThrow(
                () -> invalid("query:", "bad-value", "the query is not percent-encoded UTF-8"));
    if (text.indexOf('\0') >= 0) {
      throw invalid("query:", "bad-value", "a NUL is not allowed in the query");
    }
    return text;
  }
}
