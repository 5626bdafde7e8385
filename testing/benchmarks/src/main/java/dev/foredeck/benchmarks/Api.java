package dev.foredeck.benchmarks;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;

/// A client of `/v1`.
final class Api {
  static final ObjectMapper MAPPER = new ObjectMapper();

  private static final Duration PATIENCE = Duration.ofMinutes(3);

  private final HttpClient http =
      HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
  private final String url;
  private final String key;

  Api(String url, String key) {
    this.url = url;
    this.key = key;
  }

  private HttpRequest.Builder request(String path) {
    return HttpRequest.newBuilder(URI.create(url + path))
        .timeout(Duration.ofMinutes(2))
        .header("Authorization", "Bearer " + key)
        .header("Content-Type", "application/json");
  }

  JsonNode post(String path, String body) throws IOException, InterruptedException {
    return send(request(path).POST(HttpRequest.BodyPublishers.ofString(body)).build());
  }

  JsonNode get(String path) throws IOException, InterruptedException {
    return send(request(path).build());
  }

  /// Destroys a sandbox and waits until it is gone: the control plane is stopped soon after, and
  /// would leave it as it is.
  void destroy(String sandbox) throws IOException, InterruptedException {
    String path = "/v1/sandboxes/" + sandbox;
    send(request(path).DELETE().build());
    await(
        "sandbox " + sandbox + " is not gone",
        () -> get(path).path("phase").asText().equals("gone"));
  }

  private JsonNode send(HttpRequest request) throws IOException, InterruptedException {
    HttpResponse<String> response = http.send(request, HttpResponse.BodyHandlers.ofString());
    if (response.statusCode() >= 300) {
      throw new IOException(request.uri() + ": " + response.statusCode() + " " + response.body());
    }
    return response.body().isEmpty() ? MAPPER.createObjectNode() : MAPPER.readTree(response.body());
  }

  /// Posts and reads the event stream to its end.
  ///
  /// @return milliseconds from the request to the first event of each kind: a type, or
  ///   `sandbox.phase:ready` and the like
  Times stream(String path, String body) throws IOException, InterruptedException {
    long began = System.nanoTime();
    HttpResponse<java.io.InputStream> response =
        http.send(
            request(path)
                .header("Accept", "text/event-stream")
                .POST(HttpRequest.BodyPublishers.ofString(body))
                .build(),
            HttpResponse.BodyHandlers.ofInputStream());
    Map<String, Double> first = new HashMap<>();
    boolean claimed = false;
    String sandbox = "";
    try (BufferedReader reader =
        new BufferedReader(new InputStreamReader(response.body(), StandardCharsets.UTF_8))) {
      String line;
      while ((line = reader.readLine()) != null) {
        if (line.startsWith("data:")) {
          double millis = (System.nanoTime() - began) / 1e6;
          JsonNode event = MAPPER.readTree(line.substring(5));
          String type = event.path("type").asText();
          sandbox = sandbox.isEmpty() ? event.path("sandbox").asText() : sandbox;
          first.putIfAbsent(type, millis);
          if (type.equals("sandbox.phase")) {
            claimed |= event.path("data").path("reason").asText().equals("claimed from the pool");
            first.putIfAbsent(type + ":" + event.path("data").path("phase").asText(), millis);
          }
        }
      }
    }
    if (response.statusCode() != 200) {
      throw new IOException(path + ": " + response.statusCode());
    }
    return new Times(first, claimed, sandbox);
  }

  /// Waits until the only pool has what it should have and nothing is at work on it.
  void awaitFullPool() throws IOException, InterruptedException {
    await(
        "the pool is not full",
        () -> {
          JsonNode pool = get("/v1/pools").path("pools").get(0);
          return pool.path("warm").asInt() >= pool.path("target").asInt()
              && pool.path("warming").asInt() == 0;
        });
  }

  String readySandbox(String body) throws IOException, InterruptedException {
    String id = post("/v1/sandboxes", body).path("id").asText();
    await(
        "sandbox " + id + " is not ready",
        () -> {
          JsonNode sandbox = get("/v1/sandboxes/" + id);
          String phase = sandbox.path("phase").asText();
          if (phase.equals("failed") || phase.equals("gone")) {
            throw new IOException("the sandbox is " + sandbox);
          }
          return phase.equals("ready");
        });
    return id;
  }

  private interface Condition {
    boolean holds() throws IOException, InterruptedException;
  }

  /// @param failure what is told where the condition does not hold in three minutes
  private static void await(String failure, Condition condition)
      throws IOException, InterruptedException {
    long began = System.nanoTime();
    while (!condition.holds()) {
      if (System.nanoTime() - began > PATIENCE.toNanos()) {
        throw new IOException(failure + " after " + PATIENCE.toSeconds() + " s");
      }
      Thread.sleep(5);
    }
  }

  /// Milliseconds to the first of each.
  ///
  /// @param claimed whether the sandbox came from a pool
  record Times(Map<String, Double> first, boolean claimed, String sandbox) {
    double millis(String what) throws IOException {
      Double millis = first.get(what);
      if (millis == null) {
        throw new IOException("the stream held no " + what + ", only " + first.keySet());
      }
      return millis;
    }
  }
}
