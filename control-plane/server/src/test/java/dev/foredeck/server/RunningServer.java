package dev.foredeck.server;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.foredeck.core.Limits;
import dev.foredeck.core.kit.TestLimits;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.random.RandomGeneratorFactory;

/// A server on a free port of loopback, before a [FakeCore], and a client for it.
final class RunningServer implements AutoCloseable {
  private static final ObjectMapper MAPPER = new ObjectMapper();

  final FakeCore core = new FakeCore();
  final ForedeckServer server;
  final int port;
  volatile Optional<String> unready = Optional.empty();
  private final HttpClient client =
      HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

  RunningServer() {
    this(Limits.DEFAULT, patient());
  }

  RunningServer(Limits limits, Listen listen) {
    server =
        new ForedeckServer(
            core.doorSandboxes,
            core.doorCalls,
            core.feeds,
            core.keys,
            core.pools,
            limits,
            listen,
            () -> unready,
            () -> "foredeck_pool_warm 1\n",
            RandomGeneratorFactory.of("L64X128MixRandom").create(1));
    port = server.start();
  }

  static Listen patient() {
    return Listen.at("127.0.0.1", 0);
  }

  /// The default limits with some of them small enough to be reached.
  static Limits limits(int requests, int feeds, long uploadBytes) {
    return TestLimits.with(
        Map.of("requests", requests, "feeds", feeds, "uploadBytes", uploadBytes));
  }

  static Listen listen(Duration heartbeat, Duration stall) {
    Listen d = patient();
    return new Listen(
        d.host(),
        0,
        d.connections(),
        d.bodyMemory(),
        d.head(),
        d.idle(),
        d.body(),
        heartbeat,
        stall);
  }

  /// @param more names and values of headers
  HttpRequest.Builder request(
      String key, String method, String path, BodyPublisher body, String... more) {
    HttpRequest.Builder builder =
        HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path))
            .timeout(Duration.ofSeconds(30))
            .method(method, body);
    if (!key.isEmpty()) {
      builder.header("Authorization", "Bearer " + key);
    }
    for (int i = 0; i < more.length; i += 2) {
      builder.header(more[i], more[i + 1]);
    }
    return builder;
  }

  HttpResponse<String> send(HttpRequest.Builder request) throws Exception {
    return client.send(request.build(), BodyHandlers.ofString());
  }

  HttpResponse<String> get(String path, String... more) throws Exception {
    return send(request(FakeCore.DEVELOPER, "GET", path, BodyPublishers.noBody(), more));
  }

  HttpResponse<String> post(String path, String json, String... more) throws Exception {
    return as(FakeCore.DEVELOPER, "POST", path, json, more);
  }

  HttpResponse<String> as(String key, String method, String path, String json, String... more)
      throws Exception {
    List<String> headers = new ArrayList<>(List.of(more));
    BodyPublisher body = BodyPublishers.noBody();
    if (!json.isEmpty()) {
      body = BodyPublishers.ofString(json);
      if (!headers.contains("Content-Type")) {
        headers.addAll(List.of("Content-Type", "application/json"));
      }
    }
    return send(request(key, method, path, body, headers.toArray(String[]::new)));
  }

  HttpResponse<InputStream> stream(HttpRequest.Builder request) throws Exception {
    return client.send(request.build(), BodyHandlers.ofInputStream());
  }

  HttpResponse<byte[]> bytes(HttpRequest.Builder request) throws Exception {
    return client.send(request.build(), BodyHandlers.ofByteArray());
  }

  /// Makes a sandbox and returns its id.
  String sandbox() throws Exception {
    return json(post("/v1/sandboxes", "{}")).path("id").asText();
  }

  static JsonNode json(HttpResponse<String> response) throws Exception {
    return MAPPER.readTree(response.body());
  }

  static JsonNode json(String text) throws Exception {
    return MAPPER.readTree(text);
  }

  /// Sends bytes as they are and returns all that comes back until the server closes or is silent.
  String raw(String request) throws IOException {
    return raw(request.getBytes(StandardCharsets.ISO_8859_1));
  }

  String raw(byte[] request) throws IOException {
    try (Socket socket = new Socket(InetAddress.getLoopbackAddress(), port)) {
      socket.setSoTimeout(3000);
      socket.getOutputStream().write(request);
      socket.getOutputStream().flush();
      StringBuilder answer = new StringBuilder();
      byte[] buffer = new byte[8192];
      try {
        for (int n = socket.getInputStream().read(buffer);
            n >= 0;
            n = socket.getInputStream().read(buffer)) {
          answer.append(new String(buffer, 0, n, StandardCharsets.ISO_8859_1));
          if (answer.indexOf("\"trace\":") > 0) {
            break;
          }
        }
      } catch (java.net.SocketTimeoutException _) {
        answer.append("(silent)");
      }
      return answer.toString();
    }
  }

  /// One event of a stream.
  record Sse(Optional<String> id, String event, JsonNode data) {}

  /// Events of a whole, ended stream; comments and `retry` are skipped.
  static List<Sse> events(String body) throws Exception {
    List<Sse> events = new ArrayList<>();
    for (String block : body.split("\n\n")) {
      Map<String, String> fields = new java.util.HashMap<>();
      for (String line : block.split("\n")) {
        int colon = line.indexOf(": ");
        if (colon > 0) {
          fields.put(line.substring(0, colon), line.substring(colon + 2));
        }
      }
      if (fields.containsKey("data")) {
        events.add(
            new Sse(
                Optional.ofNullable(fields.get("id")),
                fields.getOrDefault("event", ""),
                MAPPER.readTree(fields.get("data"))));
      }
    }
    return events;
  }

  @Override
  public void close() {
    server.close();
    client.close();
  }
}
