package dev.foredeck.server;

import dev.foredeck.core.Json;
import dev.foredeck.core.Keys;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Problem;
import dev.foredeck.core.ProblemException;
import dev.foredeck.core.feed.Feeds;
import dev.foredeck.core.feed.Feeds.Feed;
import dev.foredeck.core.gate.Calls;
import dev.foredeck.core.pool.Pools;
import dev.foredeck.core.sandbox.Sandboxes;
import dev.foredeck.core.store.Store.StoreUnavailableException;
import dev.foredeck.server.Answer.AnswerException;
import dev.foredeck.server.Exchange.ClientGoneException;
import dev.foredeck.server.Route.Access;
import dev.foredeck.server.Route.Body;
import io.netty.handler.codec.http.TooLongHttpHeaderException;
import io.netty.handler.codec.http.TooLongHttpLineException;
import io.vertx.core.Context;
import io.vertx.core.Future;
import io.vertx.core.Vertx;
import io.vertx.core.VertxOptions;
import io.vertx.core.buffer.Buffer;
import io.vertx.core.file.FileSystemOptions;
import io.vertx.core.http.HttpConnection;
import io.vertx.core.http.HttpServer;
import io.vertx.core.http.HttpServerOptions;
import io.vertx.core.http.HttpServerRequest;
import io.vertx.core.http.HttpServerResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import java.util.random.RandomGenerator;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// The HTTP edge. The event loop does sockets and finds the route; everything behind it is plain
/// blocking code on a virtual thread per request.
///
/// Threading: [#start] and [#stop] from one thread; handlers run concurrently. Invariant: a request
/// that works holds a permit of `requests`, one that waits or streams a feed one of `slow`, from
/// before its thread starts until it ends.
public final class ForedeckServer implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(ForedeckServer.class);
  private static final Pattern TRACEPARENT =
      Pattern.compile("00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}");
  private static final int URI_BYTES = 16 * 1024;
  static final int CHUNK_BYTES = 64 * 1024;
  private static final int OPEN_REQUESTS = 32;
  private static final Set<String> NO_QUERY = Set.of();

  private final Keys keys;
  private final Limits limits;
  private final Listen listen;
  private final RandomGenerator random;
  private final Router router;
  private final Exchange.Edge edge;
  private final Semaphore requests;
  private final Semaphore slow;
  private final BodyMemory bodies;
  private final Semaphore openRequests = new Semaphore(OPEN_REQUESTS);
  private final Set<Feed<?>> feeds = ConcurrentHashMap.newKeySet();
  private final AtomicInteger connections = new AtomicInteger();
  private final Map<HttpConnection, Patience> patiences = new ConcurrentHashMap<>();
  private final AtomicInteger working = new AtomicInteger();
  private volatile boolean draining;
  private volatile @Nullable Vertx vertx;
  private @Nullable HttpServer http;

  /// @param unready why the process does not serve yet; empty when it does. May block.
  /// @param metrics of this process, in Prometheus' text format 0.0.4
  /// @param random of traces
  public ForedeckServer(
      Sandboxes sandboxes,
      Calls calls,
      Feeds feeds,
      Keys keys,
      Pools pools,
      Limits limits,
      Listen listen,
      Supplier<Optional<String>> unready,
      Supplier<String> metrics,
      RandomGenerator random) {
    this.keys = keys;
    this.limits = limits;
    this.listen = listen;
    this.random = random;
    this.requests = new Semaphore(limits.requests());
    this.slow = new Semaphore(limits.feeds());
    this.bodies = new BodyMemory(listen.bodyMemory());
    Decode decode = new Decode(limits);
    JsonBody json = new JsonBody(limits);
    CallDoor callDoor = new CallDoor(calls, feeds, decode, this.feeds);
    SandboxDoor sandboxDoor = new SandboxDoor(sandboxes, feeds, callDoor, decode, this.feeds);
    this.router =
        new Router(
            routes(
                sandboxDoor,
                new TenantDoor(feeds, this.feeds),
                callDoor,
                new FileDoor(calls),
                new KeyDoor(keys, decode),
                new PoolDoor(pools),
                new MetricsDoor(metrics),
                new HealthDoor(unready)));
    this.edge =
        new Exchange.Edge() {
          @Override
          public Limits limits() {
            return limits;
          }

          @Override
          public Listen listen() {
            return listen;
          }

          @Override
          public JsonBody json() {
            return json;
          }

          @Override
          public BodyMemory bodies() {
            return bodies;
          }

          @Override
          public Semaphore slow() {
            return slow;
          }

          @Override
          public boolean draining() {
            return draining;
          }
        };
  }

  /// All that is served. The committed list `routes.txt` and `openapi.json` are held to it.
  private static List<Route> routes(
      SandboxDoor sandboxes,
      TenantDoor tenant,
      CallDoor calls,
      FileDoor files,
      KeyDoor keys,
      PoolDoor pools,
      MetricsDoor metrics,
      HealthDoor health) {
    Access developer = Access.DEVELOPER;
    Access operator = Access.OPERATOR;
    String sandbox = "/v1/sandboxes/{id}";
    String call = "/v1/calls/{id}";
    String file = sandbox + "/files/{path}";
    Set<String> listing = Set.of("list", "depth", "stat");
    return List.of(
        new Route("GET", "/healthz", Access.OPEN, Body.NONE, NO_QUERY, health::alive),
        new Route("GET", "/readyz", Access.OPEN, Body.NONE, NO_QUERY, health::ready),
        new Route("GET", "/openapi.json", Access.OPEN, Body.NONE, NO_QUERY, health::contract),
        new Route("GET", "/metrics", operator, Body.NONE, NO_QUERY, metrics::scrape),
        new Route("POST", "/v1/sandboxes", developer, Body.JSON, NO_QUERY, sandboxes::create),
        new Route(
            "GET",
            "/v1/sandboxes",
            developer,
            Body.NONE,
            Set.of("label", "phase", "after", "limit"),
            sandboxes::list),
        new Route("GET", sandbox, developer, Body.NONE, NO_QUERY, sandboxes::get),
        new Route("PATCH", sandbox, developer, Body.JSON, NO_QUERY, sandboxes::patch),
        new Route("DELETE", sandbox, developer, Body.NONE, NO_QUERY, sandboxes::destroy),
        new Route(
            "GET",
            sandbox + "/events",
            developer,
            Body.NONE,
            Set.of("after", "limit"),
            sandboxes::events),
        new Route(
            "GET",
            "/v1/events",
            developer,
            Body.NONE,
            Set.of("after", "limit", "type"),
            tenant::events),
        new Route("POST", sandbox + "/calls", developer, Body.JSON, NO_QUERY, calls::start),
        new Route("GET", sandbox + "/files", developer, Body.NONE, listing, files::get),
        new Route("GET", file, developer, Body.NONE, listing, files::get),
        new Route("HEAD", file, developer, Body.NONE, NO_QUERY, files::head),
        new Route("PUT", file, developer, Body.RAW, NO_QUERY, files::put),
        new Route("POST", file, developer, Body.OPTIONAL_JSON, Set.of("move-to"), files::move),
        new Route("DELETE", file, developer, Body.NONE, Set.of("recursive"), files::remove),
        new Route("GET", call, developer, Body.NONE, NO_QUERY, calls::get),
        new Route("POST", call + "/stdin", developer, Body.JSON, NO_QUERY, calls::stdin),
        new Route("POST", call + "/signal", developer, Body.JSON, NO_QUERY, calls::signal),
        new Route("POST", call + "/resize", developer, Body.OPTIONAL_JSON, NO_QUERY, calls::resize),
        new Route("POST", call + "/cancel", developer, Body.OPTIONAL_JSON, NO_QUERY, calls::cancel),
        new Route(
            "GET",
            call + "/output",
            developer,
            Body.NONE,
            Set.of("channel", "offset", "limit"),
            calls::output),
        new Route(
            "GET", call + "/outputs/{path}", developer, Body.NONE, NO_QUERY, calls::outputFile),
        new Route("POST", "/v1/keys", operator, Body.JSON, NO_QUERY, keys::create),
        new Route("GET", "/v1/keys", operator, Body.NONE, NO_QUERY, keys::list),
        new Route("DELETE", "/v1/keys/{id}", operator, Body.NONE, NO_QUERY, keys::revoke),
        new Route("GET", "/v1/pools", operator, Body.NONE, NO_QUERY, pools::list));
  }

  Router router() {
    return router;
  }

  /// Listens; returns when connections are accepted.
  ///
  /// @return the port, which is the asked one unless that was 0
  /// @throws IllegalStateException when the address cannot be had; the message says which
  public int start() {
    Vertx made =
        Vertx.vertx(
            new VertxOptions()
                .setFileSystemOptions(
                    new FileSystemOptions()
                        .setFileCachingEnabled(false)
                        .setClassPathResolvingEnabled(false)));
    vertx = made;
    HttpServer server =
        made.createHttpServer(
            new HttpServerOptions()
                .setHost(listen.host())
                .setPort(listen.port())
                .setTcpNoDelay(true)
                .setAcceptBacklog(1024)
                .setHttp2ClearTextEnabled(false)
                .setHandle100ContinueAutomatically(false)
                .setDecompressionSupported(false)
                .setCompressionSupported(false)
                .setMaxInitialLineLength(URI_BYTES)
                .setMaxHeaderSize(limits.headerBytes())
                .setMaxChunkSize(CHUNK_BYTES));
    server.connectionHandler(this::connected);
    server.requestHandler(this::arrived);
    server.invalidRequestHandler(this::malformed);
    server.exceptionHandler(e -> log.debug("a connection failed: {}", e.toString()));
    try {
      http = server.listen().toCompletionStage().toCompletableFuture().get();
    } catch (ExecutionException e) {
      made.close();
      throw new IllegalStateException(
          "cannot listen on " + listen.host() + ":" + listen.port() + ": " + why(e), e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      made.close();
      throw new IllegalStateException("interrupted while starting to listen", e);
    }
    return http.actualPort();
  }

  private static String why(ExecutionException e) {
    Throwable cause = e.getCause() == null ? e : e.getCause();
    return cause.getMessage() == null ? cause.toString() : cause.getMessage();
  }

  /// Stops: no new connection, feeds end, waiting answers say `shutting-down`, work in hand is
  /// finished for at most `drain`. Idempotent.
  public void stop(Duration drain) {
    draining = true;
    Vertx running = vertx;
    HttpServer server = http;
    if (running == null) {
      return;
    }
    vertx = null;
    http = null;
    feeds.forEach(Feed::close);
    if (server != null) {
      await(server.shutdown(drain), drain.plusSeconds(1));
    }
    await(running.close(), Duration.ofSeconds(5));
  }

  @Override
  public void close() {
    stop(Duration.ZERO);
  }

  /// Requests that have a thread now, feeds included.
  public int working() {
    return working.get();
  }

  /// Bytes of request bodies in memory now.
  long bodyBytes() {
    return bodies.taken();
  }

  private static void await(Future<Void> future, Duration most) {
    try {
      future.toCompletionStage().toCompletableFuture().get(most.toMillis(), TimeUnit.MILLISECONDS);
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    } catch (ExecutionException | TimeoutException e) {
      log.warn("the HTTP server did not stop in order: {}", e.toString());
    }
  }

  // ---- on the event loop

  private void connected(HttpConnection connection) {
    if (connections.incrementAndGet() > listen.connections() || draining) {
      connections.decrementAndGet();
      connection.close();
      return;
    }
    Patience patience = new Patience(connection);
    patience.arm(listen.head());
    connection.closeHandler(_ -> {
      connections.decrementAndGet();
      patiences.remove(connection);
      patience.disarm();
    });
    patiences.put(connection, patience);
  }

  private void arrived(HttpServerRequest request) {
    request.pause();
    String trace = trace(request);
    Context context = Objects.requireNonNull(Vertx.currentContext());
    if (draining) {
      refuse(request, trace, Answer.of(shuttingDown()));
      return;
    }
    String path = request.path() == null ? "" : request.path();
    Router.Match match = router.match(request.method().name(), path);
    switch (match) {
      case Router.Unknown _ -> refuse(request, trace, Answer.noRoute(printable(path)));
      case Router.WrongMethod wrong ->
          refuse(
              request,
              trace,
              Answer.wrongMethod(printable(request.method().name()), wrong.allow()));
      case Router.Found found -> {
        boolean open = found.route().access() == Access.OPEN;
        Semaphore permits = open ? openRequests : requests;
        if (!permits.tryAcquire()) {
          refuse(request, trace, Answer.of(busy()));
          return;
        }
        Exchange exchange =
            new Exchange(edge, request, context, found.route(), found.parameters(), trace, permits);
        rest(request);
        exchange.attach();
        working.incrementAndGet();
        Thread.ofVirtual().name("request-" + trace).start(() -> serve(exchange, context));
      }
    }
  }

  /// Netty could not make a request of it.
  private void malformed(HttpServerRequest request) {
    Throwable cause = request.decoderResult().cause();
    Answer answer =
        switch (cause) {
          case TooLongHttpLineException _ -> Answer.uriTooLong(URI_BYTES);
          case TooLongHttpHeaderException _ -> Answer.headTooLarge(limits.headerBytes());
          case null, default ->
              Answer.malformed("the request line, a header or the body's framing is broken");
        };
    // What follows on this connection cannot be trusted to be where a request begins.
    request.response().putHeader("Connection", "close");
    write(request, trace(request), answer).onComplete(_ -> request.connection().close());
  }

  /// Answers without a thread.
  private void refuse(HttpServerRequest request, String trace, Answer answer) {
    rest(request);
    write(request, trace, answer);
    Exchange.discard(request);
  }

  private static Future<Void> write(HttpServerRequest request, String trace, Answer answer) {
    HttpServerResponse response = request.response();
    response.setStatusCode(answer.status());
    answer.headers().forEach(response::putHeader);
    response.putHeader("Content-Type", "application/problem+json");
    response.putHeader("X-Content-Type-Options", "nosniff");
    response.putHeader("Cache-Control", "no-store");
    response.putHeader("X-Foredeck-Trace", trace);
    return response.end(
        Buffer.buffer(Json.write(answer.json(trace)).getBytes(StandardCharsets.UTF_8)));
  }

  /// The connection's clock stands while a request is worked on, and runs between requests.
  private void rest(HttpServerRequest request) {
    Patience patience = patiences.get(request.connection());
    if (patience != null) {
      patience.disarm();
      request.response().endHandler(_ -> patience.arm(listen.idle()));
    }
  }

  private static Problem busy() {
    return new Problem.Capacity(
        "busy", "this server works on as many requests as it may", Duration.ofSeconds(1));
  }

  private static Problem shuttingDown() {
    return new Problem.Unavailable(
        "shutting-down", "this server stops; ask again", Duration.ofSeconds(2));
  }

  /// The caller's trace where it sent one (W3C `traceparent`), else one of ours.
  private String trace(HttpServerRequest request) {
    String parent = request.headers().get("traceparent");
    if (parent != null) {
      Matcher m = TRACEPARENT.matcher(parent);
      if (m.matches()) {
        return m.group(1);
      }
    }
    HexFormat hex = HexFormat.of();
    return hex.toHexDigits(random.nextLong()) + hex.toHexDigits(random.nextLong());
  }

  private static String printable(String text) {
    return text.substring(0, Math.min(200, text.length())).replaceAll("[^\\x20-\\x7e]", "?");
  }

  // ---- on the request's virtual thread

  private void serve(Exchange exchange, Context context) {
    try {
      exchange.authenticate(keys);
      exchange.readAhead();
      exchange.route().handler().handle(exchange);
    } catch (ProblemException e) {
      exchange.answer(Answer.of(e.problem()));
    } catch (AnswerException e) {
      exchange.answer(e.answer());
    } catch (StoreUnavailableException e) {
      log.warn("{} {}: the store is not available", exchange.trace(), exchange.route().name(), e);
      exchange.answer(Answer.of(storeUnavailable()));
    } catch (ClientGoneException _) {
      exchange.cut();
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
      exchange.answer(Answer.of(shuttingDown()));
    } catch (Exception | StackOverflowError | AssertionError e) {
      failed(exchange, e);
    } finally {
      exchange.finish(context);
      working.decrementAndGet();
    }
  }

  /// A fault of ours, unless it is only the client's body that broke off under the reader.
  private static void failed(Exchange exchange, Throwable e) {
    if (!exchange.bodyBroke()) {
      log.error("{} {} failed", exchange.trace(), exchange.route().name(), e);
    }
    exchange.answer(Answer.internal());
  }

  private static Problem storeUnavailable() {
    return new Problem.Unavailable(
        "store-unavailable", "the database does not answer; ask again", Duration.ofSeconds(2));
  }

  /// Closes a connection that takes too long over a request head. On the connection's event loop.
  private final class Patience {
    private final HttpConnection connection;
    private long timer = -1;

    Patience(HttpConnection connection) {
      this.connection = connection;
    }

    void arm(Duration most) {
      disarm();
      Vertx running = vertx;
      if (running != null) {
        timer = running.setTimer(most.toMillis(), _ -> connection.close());
      }
    }

    void disarm() {
      Vertx running = vertx;
      if (timer >= 0 && running != null) {
        running.cancelTimer(timer);
      }
      timer = -1;
    }
  }
}
