package dev.foredeck.server;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.server.Route.Access;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// Every route is authorised, and the committed list says how.
class AuthorizationTest {
  private final RunningServer server = new RunningServer();

  @AfterEach
  void stop() {
    server.close();
  }

  private record Line(String method, String template, Access access) {}

  private static List<Line> committed() throws Exception {
    try (var in =
        Objects.requireNonNull(AuthorizationTest.class.getResourceAsStream("/routes.txt"))) {
      return new String(in.readAllBytes(), StandardCharsets.UTF_8)
          .lines()
          .filter(line -> !line.isBlank() && !line.startsWith("#"))
          .map(line -> line.split(" ", 3))
          .map(f -> new Line(f[0], f[1], Access.valueOf(f[2].toUpperCase(Locale.ROOT))))
          .toList();
    }
  }

  /// A body that each route takes, so that only authorisation can refuse.
  private static final Map<String, String> BODIES =
      Map.of(
          "POST /v1/sandboxes", "{}",
          "PATCH /v1/sandboxes/{id}", "{\"ttl\":\"1m\"}",
          "POST /v1/sandboxes/{id}/calls", "{\"tool\":\"process.start\",\"argv\":[\"x\"]}",
          "PUT /v1/sandboxes/{id}/files/{path}", "x",
          "POST /v1/calls/{id}/stdin", "{\"text\":\"x\"}",
          "POST /v1/calls/{id}/signal", "{\"signal\":\"INT\"}",
          "POST /v1/keys", "{\"name\":\"n\"}");

  private HttpResponse<String> ask(Line line, String key, String id) throws Exception {
    String path = line.template().replace("{id}", id).replace("{path}", "a.txt");
    boolean move = line.method().equals("POST") && path.contains("/files/");
    String body = BODIES.getOrDefault(line.method() + " " + line.template(), "");
    return server.as(key, line.method(), move ? path + "?move-to=b.txt" : path, body);
  }

  @Test
  void theRouterServesExactlyTheCommittedList() throws Exception {
    Set<Line> served = new HashSet<>();
    for (Route route : server.server.router().routes()) {
      served.add(new Line(route.method(), route.template(), route.access()));
    }
    assertThat(served).isEqualTo(new HashSet<>(committed()));
  }

  @Test
  void refusesEveryRouteWithoutAKnownKeyInTheSameWords() throws Exception {
    Set<String> answers = new HashSet<>();
    for (Line line : committed()) {
      for (String key : List.of("", "unknown", "developer-key2")) {
        HttpResponse<String> answer = ask(line, key, "sbx00000000000000001");
        if (line.access() == Access.OPEN) {
          assertThat(answer.statusCode()).as(line.toString()).isEqualTo(200);
          continue;
        }
        assertThat(answer.statusCode()).as(line.toString()).isEqualTo(401);
        assertThat(answer.headers().firstValue("WWW-Authenticate"))
            .contains("Bearer realm=\"foredeck\"");
        if (!line.method().equals("HEAD")) {
          answers.add(((ObjectNode) RunningServer.json(answer)).without("trace").toString());
        }
      }
    }
    assertThat(answers).hasSize(1);
    assertThat(server.core.operations).isEmpty();
  }

  @Test
  void refusesOtherSchemesAndTwoHeaders() throws Exception {
    String[][] wrong = {
      {"Authorization", "Basic ZGV2OmRldg=="},
      {"Authorization", "developer-key"},
      {"Authorization", "Bearer "},
      {"Authorization", "Bearer developer-key", "Authorization", "Bearer operator-key"}
    };
    for (String[] headers : wrong) {
      assertThat(server.as("", "GET", "/v1/sandboxes", "", headers).statusCode()).isEqualTo(401);
    }
    String[] lower = {"Authorization", "bearer developer-key"};
    assertThat(server.as("", "GET", "/v1/sandboxes", "", lower).statusCode()).isEqualTo(200);
  }

  @Test
  void refusesARevokedKey() throws Exception {
    server.core.revoked.add(FakeCore.DEVELOPER);
    assertThat(server.get("/v1/sandboxes").statusCode()).isEqualTo(401);
  }

  @Test
  void refusesOperatorRoutesToDevelopers() throws Exception {
    for (Line line : committed()) {
      if (line.access() == Access.OPERATOR) {
        HttpResponse<String> answer = ask(line, FakeCore.DEVELOPER, "key00000000000000001");
        assertThat(answer.statusCode()).as(line.toString()).isEqualTo(403);
        assertThat(RunningServer.json(answer).path("code").asText()).isEqualTo("forbidden");
      }
    }
    assertThat(server.core.operations).isEmpty();
  }

  @Test
  void findsNothingOfAnotherTenant() throws Exception {
    String sandbox = server.sandbox();
    String call =
        RunningServer.json(
                server.post(
                    "/v1/sandboxes/" + sandbox + "/calls",
                    "{\"tool\":\"process.start\",\"argv\":[\"x\"]}"))
            .path("call")
            .path("id")
            .asText();
    server.core.files.put("a.txt", new byte[1]);
    String key = server.core.principals.values().iterator().next().key().value();
    for (Line line : committed()) {
      if (line.template().contains("{id}")) {
        boolean keys = line.template().startsWith("/v1/keys");
        String id = keys ? key : line.template().startsWith("/v1/calls") ? call : sandbox;
        String stranger = keys ? FakeCore.OTHER_OPERATOR : FakeCore.STRANGER;
        assertThat(ask(line, stranger, id).statusCode()).as(line.toString()).isEqualTo(404);
        assertThat(ask(line, stranger, "nothing").statusCode()).as(line.toString()).isEqualTo(404);
      }
    }
    assertThat(server.as(FakeCore.STRANGER, "GET", "/v1/sandboxes", "").body())
        .isEqualTo("{\"sandboxes\":[]}");
    assertThat(server.core.files).containsKey("a.txt");
  }

  @Test
  void managesKeysAndShowsASecretOnce() throws Exception {
    HttpResponse<String> created =
        server.as(FakeCore.OPERATOR, "POST", "/v1/keys", "{\"name\":\"ci\"}");
    assertThat(created.statusCode()).isEqualTo(201);
    String secret = RunningServer.json(created).path("key").asText();
    String id = RunningServer.json(created).path("id").asText();
    assertThat(RunningServer.json(created).path("role").asText()).isEqualTo("developer");
    assertThat(server.as(secret, "GET", "/v1/sandboxes", "").statusCode()).isEqualTo(200);
    String list = server.as(FakeCore.OPERATOR, "GET", "/v1/keys", "").body();
    assertThat(list).contains(id).doesNotContain(secret);
    assertThat(server.as(FakeCore.OPERATOR, "DELETE", "/v1/keys/" + id, "").statusCode())
        .isEqualTo(204);
    assertThat(server.as(secret, "GET", "/v1/sandboxes", "").statusCode()).isEqualTo(401);
  }
}
