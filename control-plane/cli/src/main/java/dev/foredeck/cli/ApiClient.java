package dev.foredeck.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.DateTimeException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLong;

/// A client of one control plane's `/v1`. A stream that drops is taken up again behind the last
/// event that arrived, so that its reader sees each event once.
///
/// Threading: any; each stream belongs to the thread that follows it.
final class ApiClient implements AutoCloseable {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final int MAX_ANSWER_BYTES = 4 * 1024 * 1024;
  private static final Duration CONNECT = Duration.ofSeconds(5);
  private static final Duration ANSWER = Duration.ofSeconds(30);

  /// How a stream is watched over.
  ///
  /// @param silence without a byte, after which a connection counts as dead; the server's heartbeat
  ///   comes every 15 s
  /// @param pause before the first new try; each further one waits twice as long, up to 16 times
  /// @param tries in a row that bring no new event
  record Patience(Duration silence, Duration pause, int tries) {
    static final Patience DEFAULT = new Patience(Duration.ofSeconds(45), Duration.ofMillis(200), 8);
  }

  /// Sees what a followed stream brings, on the thread that follows it.
  interface Observer {
    void event(LogEvent event);

    /// The connection is gone before the log's end and is taken up again.
    ///
    /// @param after the last event that arrived, 0 for none
    void resuming(long after, String why);
  }

  private final HttpClient http =
      HttpClient.newBuilder()
          .version(HttpClient.Version.HTTP_1_1)
          .connectTimeout(CONNECT)
          .followRedirects(HttpClient.Redirect.NEVER)
          .build();
  private final URI base;
  private final String key;
  private final Patience patience;

  /// @param base without a path, as `http://127.0.0.1:7070`
  ApiClient(URI base, String key, Patience patience) {
    this.base = base;
    this.key = key;
    this.patience = patience;
  }

  URI sandboxes() {
    return base.resolve("/v1/sandboxes");
  }

  /// Creates a sandbox, runs what the body says and follows its log to its end: one request, and
  /// more only where the connection ends before the log does.
  ///
  /// @param idempotencyKey with which a request that dropped before its first event is repeated
  /// @throws CommandException where the control plane refuses it or stays away
  void create(byte[] body, String idempotencyKey, Observer observer) throws InterruptedException {
    HttpRequest create =
        request(sandboxes())
            .header("Content-Type", "application/json")
            .header("Accept", "text/event-stream")
            .header("Idempotency-Key", idempotencyKey)
            .POST(BodyPublishers.ofByteArray(body))
            .build();
    Following following = new Following(observer);
    int fruitless = 0;
    while (true) {
      long before = following.seq;
      String why;
      try {
        if (following.follow(following.sandbox.isEmpty() ? create : rest(following))) {
          return;
        }
        why = "the server closed the stream";
      } catch (IOException e) {
        why = reason(e);
      }
      fruitless = following.seq > before ? 0 : fruitless + 1;
      if (fruitless >= patience.tries()) {
        throw new CommandException(
            ExitCode.CANNOT,
            "the stream of " + base + " broke and does not come back (" + why + ")");
      }
      observer.resuming(following.seq, why);
      Thread.sleep(patience.pause().multipliedBy(1L << Math.min(fruitless, 4)));
    }
  }

  private HttpRequest rest(Following following) {
    return request(base.resolve("/v1/sandboxes/" + following.sandbox + "/events"))
        .header("Accept", "text/event-stream")
        .header("Last-Event-ID", Long.toString(following.seq))
        .GET()
        .build();
  }

  /// The sandboxes that are not gone, with this label.
  ///
  /// @param label as `key=value`; empty for any
  List<String> live(String label) throws InterruptedException {
    String query = label.isEmpty() ? "" : "?label=" + label.replace("=", "%3D");
    JsonNode page = json(request(URI.create(sandboxes() + query)).GET().build());
    List<String> ids = new ArrayList<>();
    for (JsonNode sandbox : page.path("sandboxes")) {
      if (!isOver(sandbox)) {
        ids.add(sandbox.path("id").asText());
      }
    }
    return ids;
  }

  /// Destroys a sandbox and waits until it is gone.
  ///
  /// @return whether it is
  boolean destroy(String sandbox, Duration atMost) throws InterruptedException {
    URI one = URI.create(sandboxes() + "/" + sandbox);
    long end = System.nanoTime() + atMost.toNanos();
    JsonNode _ = json(request(one).DELETE().build());
    while (!isOver(json(request(one).GET().build()))) {
      if (System.nanoTime() > end) {
        return false;
      }
      Thread.sleep(patience.pause());
    }
    return true;
  }

  private static boolean isOver(JsonNode sandbox) {
    String phase = sandbox.path("phase").asText("");
    return phase.equals("gone") || phase.equals("failed");
  }

  private HttpRequest.Builder request(URI uri) {
    return HttpRequest.newBuilder(uri).timeout(ANSWER).header("Authorization", "Bearer " + key);
  }

  /// @throws CommandException where it is refused or the control plane does not answer
  private JsonNode json(HttpRequest request) throws InterruptedException {
    try {
      HttpResponse<InputStream> response = http.send(request, BodyHandlers.ofInputStream());
      try (InputStream in = response.body()) {
        byte[] body = in.readNBytes(MAX_ANSWER_BYTES);
        if (response.statusCode() / 100 != 2) {
          throw refused(response.statusCode(), body);
        }
        return body.length == 0 ? JSON.createObjectNode() : JSON.readTree(body);
      }
    } catch (IOException e) {
      throw new CommandException(ExitCode.CANNOT, base + " does not answer: " + reason(e), e);
    }
  }

  /// What an RFC 9457 problem says, or what there is instead.
  private static CommandException refused(int status, byte[] body) {
    StringBuilder text = new StringBuilder("the control plane answered ").append(status);
    try {
      JsonNode problem = JSON.readTree(body);
      String detail = problem.path("detail").asText(problem.path("title").asText(""));
      if (!detail.isEmpty()) {
        text.append(": ").append(Terminal.harmless(detail));
      }
      String code = problem.path("code").asText("");
      if (!code.isEmpty()) {
        text.append(" (").append(Terminal.harmless(code)).append(')');
      }
      for (JsonNode violation : problem.path("violations")) {
        String message = violation.path("message").asText("");
        text.append("\n  ")
            .append(Terminal.harmless(violation.path("pointer").asText("")))
            .append(": ")
            .append(Terminal.harmless(message));
      }
    } catch (IOException e) {
      text.append(" and no problem document");
    }
    return new CommandException(ExitCode.CANNOT, text.toString());
  }

  private static String reason(IOException e) {
    String message = e.getMessage();
    return message == null || message.isBlank() ? e.getClass().getSimpleName() : message;
  }

  @Override
  public void close() {
    http.shutdownNow();
    http.close();
  }

  /// Where a reader of one log is.
  private final class Following {
    private final Observer observer;
    private String sandbox = "";
    private long seq;

    private Following(Observer observer) {
      this.observer = observer;
    }

    /// @return whether the log is at its end; otherwise the stream alone was
    private boolean follow(HttpRequest request) throws IOException, InterruptedException {
      HttpResponse<InputStream> response = http.send(request, BodyHandlers.ofInputStream());
      AtomicLong lastByte = new AtomicLong(System.nanoTime());
      try (InputStream in = new Watched(response.body(), lastByte)) {
        if (response.statusCode() == 503 || response.statusCode() == 429) {
          throw new IOException("it answered " + response.statusCode());
        }
        if (response.statusCode() != 200) {
          throw refused(response.statusCode(), in.readNBytes(MAX_ANSWER_BYTES));
        }
        Thread watch = Thread.ofVirtual().start(() -> closeWhenSilent(in, lastByte));
        try {
          return read(new EventStreamParser(in));
        } finally {
          watch.interrupt();
        }
      }
    }

    private boolean read(EventStreamParser events) throws IOException {
      while (true) {
        Optional<EventStreamParser.Sent> sent = events.next();
        if (sent.isEmpty()) {
          return false;
        }
        if (sent.get().type().equals("problem")) {
          throw refused(200, sent.get().data().getBytes(StandardCharsets.UTF_8));
        }
        LogEvent event = event(sent.get());
        if (event.seq() <= seq) {
          continue;
        }
        seq = event.seq();
        sandbox = event.sandbox();
        observer.event(event);
        if (event.endsTheLog()) {
          return true;
        }
      }
    }

    private void closeWhenSilent(InputStream in, AtomicLong lastByte) {
      try {
        while (true) {
          long silent = System.nanoTime() - lastByte.get();
          long left = patience.silence().toNanos() - silent;
          if (left <= 0) {
            in.close();
            return;
          }
          Thread.sleep(Duration.ofNanos(left));
        }
      } catch (InterruptedException | IOException e) {
        // The stream ended by itself, or is closed already: nothing is left to watch.
      }
    }
  }

  private static LogEvent event(EventStreamParser.Sent sent) throws IOException {
    try {
      JsonNode json = JSON.readTree(sent.data());
      long seq = json.path("seq").asLong(0);
      String sandbox = json.path("sandbox").asText("");
      if (seq < 1 || !sandbox.matches("[a-z][a-z0-9]{1,40}")) {
        throw new CommandException(
            ExitCode.CANNOT,
            "the stream sent an event that is none: "
                + Terminal.harmless(sent.data().substring(0, Math.min(200, sent.data().length()))));
      }
      return new LogEvent(
          seq,
          Instant.parse(json.path("time").asText()),
          json.path("type").asText(sent.type()),
          sandbox,
          json.path("call").asText(""),
          json.path("data"));
    } catch (JsonProcessingException | DateTimeException e) {
      throw new CommandException(ExitCode.CANNOT, "the stream sent an event that is none", e);
    }
  }

  /// Notes when the last bytes came.
  private static final class Watched extends FilterInputStream {
    private final AtomicLong lastByte;

    Watched(InputStream in, AtomicLong lastByte) {
      super(in);
      this.lastByte = lastByte;
    }

    @Override
    public int read(byte[] into, int offset, int length) throws IOException {
      int count = super.read(into, offset, length);
      lastByte.set(System.nanoTime());
      return count;
    }
  }
}
