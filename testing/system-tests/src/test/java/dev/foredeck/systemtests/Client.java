package dev.foredeck.systemtests;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Predicate;

/// What any client does: HTTP and JSON, nothing of Foredeck's own code.
final class Client {
  static final ObjectMapper MAPPER = new ObjectMapper();

  private final Plane plane;
  private final HttpClient http =
      HttpClient.newBuilder()
          .version(HttpClient.Version.HTTP_1_1)
          .connectTimeout(Duration.ofSeconds(5))
          .build();

  Client(Plane plane) {
    this.plane = plane;
  }

  record Answer(int status, String body, HttpResponse<?> response) {
    JsonNode json() {
      return parse(body);
    }
  }

  static JsonNode parse(String text) {
    try {
      return MAPPER.readTree(text);
    } catch (JsonProcessingException e) {
      throw new IllegalStateException("not JSON: " + text, e);
    }
  }

  HttpRequest.Builder request(String path) {
    return HttpRequest.newBuilder(URI.create(plane.url() + path))
        .timeout(Duration.ofMinutes(2))
        .header("Authorization", "Bearer " + plane.key());
  }

  Answer send(HttpRequest request) {
    try {
      HttpResponse<String> response =
          http.send(request, HttpResponse.BodyHandlers.ofString(StandardCharsets.UTF_8));
      return new Answer(response.statusCode(), response.body(), response);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException(e);
    }
  }

  Answer get(String path) {
    return send(request(path).build());
  }

  byte[] bytes(String path) {
    try {
      HttpResponse<byte[]> response =
          http.send(request(path).build(), HttpResponse.BodyHandlers.ofByteArray());
      if (response.statusCode() != 200) {
        throw new IllegalStateException(
            path
                + ": "
                + response.statusCode()
                + " "
                + new String(response.body(), StandardCharsets.UTF_8));
      }
      return response.body();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException(e);
    }
  }

  Answer post(String path, String body, String... headers) {
    HttpRequest.Builder builder =
        request(path)
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body));
    for (int i = 0; i < headers.length; i += 2) {
      builder.header(headers[i], headers[i + 1]);
    }
    return send(builder.build());
  }

  Answer put(String path, byte[] body) {
    return send(request(path).PUT(HttpRequest.BodyPublishers.ofByteArray(body)).build());
  }

  Answer delete(String path) {
    return send(request(path).DELETE().build());
  }

  /// A sandbox that is ready.
  String sandbox(String body) {
    Answer created = post("/v1/sandboxes", body);
    if (created.status() != 201) {
      throw new IllegalStateException("no sandbox: " + created.status() + " " + created.body());
    }
    String id = created.json().path("id").asText();
    JsonNode sandbox =
        awaitPhase(id, phase -> !phase.equals("requested") && !phase.equals("starting"));
    if (!sandbox.path("phase").asText().equals("ready")) {
      throw new IllegalStateException("the sandbox is not ready: " + sandbox);
    }
    return id;
  }

  JsonNode awaitPhase(String id, Predicate<String> phase) {
    long end = System.nanoTime() + Duration.ofSeconds(90).toNanos();
    while (true) {
      JsonNode sandbox = get("/v1/sandboxes/" + id).json();
      if (phase.test(sandbox.path("phase").asText())) {
        return sandbox;
      }
      if (System.nanoTime() > end) {
        throw new IllegalStateException("the sandbox stays " + sandbox);
      }
      sleep(20);
    }
  }

  /// Runs a command to its end.
  ///
  /// @return the call's JSON
  JsonNode run(String sandbox, String... argv) {
    Answer answer = start(sandbox, false, argv);
    if (answer.status() != 200) {
      throw new IllegalStateException("no call: " + answer.status() + " " + answer.body());
    }
    return answer.json().has("call") ? answer.json().path("call") : answer.json();
  }

  Answer start(String sandbox, boolean background, String... argv) {
    var body = MAPPER.createObjectNode().put("tool", "process.start").put("background", background);
    var words = body.putArray("argv");
    for (String word : argv) {
      words.add(word);
    }
    return post("/v1/sandboxes/" + sandbox + "/calls", body.toString());
  }

  record Event(long seq, String type, JsonNode envelope) {
    JsonNode data() {
      return envelope.path("data");
    }
  }

  /// A live reader; ends at the end of the stream.
  List<Event> stream(HttpRequest request) {
    try {
      HttpResponse<java.io.InputStream> response =
          http.send(request, HttpResponse.BodyHandlers.ofInputStream());
      if (response.statusCode() != 200) {
        throw new IllegalStateException(
            response.statusCode()
                + " "
                + new String(response.body().readAllBytes(), StandardCharsets.UTF_8));
      }
      List<Event> events = new ArrayList<>();
      try (BufferedReader reader =
          new BufferedReader(new InputStreamReader(response.body(), StandardCharsets.UTF_8))) {
        String line;
        while ((line = reader.readLine()) != null) {
          if (line.startsWith("data:")) {
            JsonNode envelope = parse(line.substring(5).strip());
            events.add(
                new Event(envelope.path("seq").asLong(), envelope.path("type").asText(), envelope));
          }
        }
      }
      return events;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException(e);
    }
  }

  void destroyAll() {
    String after = "";
    List<String> ids = new ArrayList<>();
    while (true) {
      JsonNode page = get("/v1/sandboxes" + after).json().path("sandboxes");
      if (page.isEmpty()) {
        break;
      }
      for (JsonNode sandbox : page) {
        String phase = sandbox.path("phase").asText();
        String id = sandbox.path("id").asText();
        if (!phase.equals("gone") && !phase.equals("failed")) {
          delete("/v1/sandboxes/" + id);
          ids.add(id);
        }
        after = "?after=" + id;
      }
    }
    for (String id : ids) {
      awaitPhase(id, phase -> phase.equals("gone") || phase.equals("failed"));
    }
  }

  static void sleep(long millis) {
    try {
      Thread.sleep(millis);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException(e);
    }
  }
}
