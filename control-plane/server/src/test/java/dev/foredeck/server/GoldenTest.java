package dev.foredeck.server;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import dev.foredeck.core.Id;
import dev.foredeck.core.Problem;
import dev.foredeck.core.ProblemException;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;

/// The exact bodies of answers and problems. `./foredeck golden` writes them anew.
class GoldenTest {
  private static final Path FOLDER = Path.of("src/test/resources/golden");
  private static final ObjectMapper MAPPER =
      new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);

  private static void assertGolden(String name, String body) throws Exception {
    JsonNode json = MAPPER.readTree(body);
    String text = MAPPER.writeValueAsString(json) + "\n";
    Path file = FOLDER.resolve(name + ".json");
    if (Boolean.getBoolean("foredeck.golden.write")) {
      Files.createDirectories(FOLDER);
      Files.writeString(file, text, StandardCharsets.UTF_8);
    }
    assertThat(text).isEqualTo(Files.readString(file, StandardCharsets.UTF_8));
  }

  @Test
  void answers() throws Exception {
    try (RunningServer server = new RunningServer()) {
      assertGolden(
          "sandbox",
          server
              .post(
                  "/v1/sandboxes",
                  "{\"env\":{\"TOKEN\":\"hidden\"},\"labels\":{\"team\":\"growth\"},\"network\":{\"allow\":[\"pypi.org\"]}}")
              .body());
      server.core.files.put("chart.png", new byte[] {1, 2, 3});
      server.core.exitCode = 1;
      assertGolden(
          "run",
          server
              .post(
                  "/v1/sandboxes",
                  "{\"run\":{\"argv\":[\"echo\"]},\"outputs\":[\"chart.png\",\"no.txt\"]}")
              .body());
      String id = server.core.sandboxes.keySet().iterator().next().value();
      assertGolden("events", server.get("/v1/sandboxes/" + id + "/events").body());
      assertGolden("pools", server.as(FakeCore.OPERATOR, "GET", "/v1/pools", "").body());
      assertGolden("listing", server.get("/v1/sandboxes/" + id + "/files").body());
    }
  }

  @Test
  void problems() throws Exception {
    Id sandbox = new Id("sbx00000000000000001");
    Id call = new Id("call0000000000000001");
    Map<String, Problem> problems = new LinkedHashMap<>();
    problems.put("unauthenticated", new Problem.Unauthenticated("inside"));
    problems.put("forbidden", new Problem.Forbidden("needs role operator"));
    problems.put(
        "denied",
        new Problem.Denied(sandbox, call, List.of("no-force"), "coding@3", "Open a pull request"));
    problems.put(
        "not-found", new Problem.NotFound("sandbox-not-found", "there is no such sandbox"));
    problems.put("conflict", new Problem.Conflict("sandbox-gone", "it is gone"));
    problems.put("too-large", new Problem.TooLarge("file-too-large", "at most 3 bytes"));
    problems.put(
        "capacity", new Problem.Capacity("call-quota", "48 calls run", Duration.ofMillis(1500)));
    problems.put(
        "unavailable", new Problem.Unavailable("agent-silent", "no answer", Duration.ZERO));
    problems.put("internal", new Problem.Internal("something failed inside"));
    try (RunningServer server = new RunningServer()) {
      String trace = "0af7651916cd43dd8448eb211c80319c";
      String[] parent = {"traceparent", "00-" + trace + "-b7ad6b7169203331-01"};
      for (Map.Entry<String, Problem> entry : problems.entrySet()) {
        server.core.fails = Optional.of(new ProblemException(entry.getValue()));
        HttpResponse<String> answer = server.get("/v1/sandboxes", parent);
        assertGolden("problem-" + entry.getKey(), answer.body());
        assertThat(answer.statusCode())
            .isEqualTo(RunningServer.json(answer).path("status").asInt());
        assertThat(answer.headers().firstValue("X-Foredeck-Trace")).contains(trace);
      }
      server.core.fails = Optional.empty();
      assertGolden(
          "problem-invalid",
          server.post("/v1/sandboxes", "{\"tll\":\"1m\",\"secrets\":[],\"ttl\":5}", parent).body());
    }
  }

  @Test
  void aFaultSaysNothingOfTheInside() throws Exception {
    try (RunningServer server = new RunningServer()) {
      server.core.fails = Optional.of(new IllegalStateException("jdbc:postgresql://secret"));
      HttpResponse<String> answer = server.get("/v1/sandboxes");
      assertThat(answer.statusCode()).isEqualTo(500);
      assertThat(answer.body()).doesNotContain("secret").contains("\"code\":\"internal\"");
      server.unready = Optional.of("the store is starting");
      HttpResponse<String> ready = server.as("", "GET", "/readyz", "");
      assertThat(ready.statusCode()).isEqualTo(503);
      assertThat(RunningServer.json(ready).path("detail").asText())
          .isEqualTo("the store is starting");
    }
  }
}
