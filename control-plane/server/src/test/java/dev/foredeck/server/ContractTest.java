package dev.foredeck.server;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Limits;
import dev.foredeck.server.Route.Access;
import dev.foredeck.server.Route.Body;
import java.nio.charset.StandardCharsets;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/// `openapi.json` is the contract: it and the routes are held to each other, both ways.
class ContractTest {
  private static final RunningServer server = new RunningServer();
  private static JsonNode contract = dev.foredeck.core.Json.object();

  @BeforeAll
  static void fetch() throws Exception {
    contract = RunningServer.json(server.as("", "GET", "/openapi.json", ""));
  }

  @AfterAll
  static void stop() {
    server.close();
  }

  private static JsonNode operation(Route route) {
    return contract
        .path("paths")
        .path(route.template())
        .path(route.method().toLowerCase(Locale.ROOT));
  }

  @Test
  void namesExactlyTheRoutesThatAreServed() {
    Set<String> documented = new TreeSet<>();
    for (Map.Entry<String, JsonNode> path : contract.path("paths").properties()) {
      for (Map.Entry<String, JsonNode> method : path.getValue().properties()) {
        if (!method.getKey().equals("parameters")) {
          documented.add(method.getKey().toUpperCase(Locale.ROOT) + " " + path.getKey());
        }
      }
    }
    Set<String> served = new TreeSet<>();
    server.server.router().routes().forEach(route -> served.add(route.name()));
    assertThat(documented).isEqualTo(served);
  }

  @Test
  void saysWhoMayAskAndWhatTheQueryKnows() {
    for (Route route : server.server.router().routes()) {
      JsonNode operation = operation(route);
      String role = operation.path("x-foredeck-role").asText("open");
      assertThat(role).as(route.name()).isEqualTo(route.access().name().toLowerCase(Locale.ROOT));
      assertThat(operation.has("security")).isEqualTo(route.access() == Access.OPEN);
      Set<String> query = new HashSet<>();
      boolean idempotent = false;
      for (JsonNode parameter : operation.path("parameters")) {
        if (parameter.path("in").asText().equals("query")) {
          query.add(parameter.path("name").asText());
        }
        idempotent |= parameter.path("$ref").asText().endsWith("/IdempotencyKey");
      }
      assertThat(query).as(route.name()).isEqualTo(route.query());
      // A key's secret is not kept: a repeat could not show it.
      boolean repeatable = route.method().equals("POST") && !route.name().equals("POST /v1/keys");
      assertThat(idempotent).as(route.name()).isEqualTo(repeatable);
      boolean required = route.body() == Body.JSON || route.body() == Body.RAW;
      assertThat(operation.path("requestBody").path("required").asBoolean())
          .as(route.name())
          .isEqualTo(required);
    }
  }

  @Test
  void everyReferenceLeadsSomewhere() {
    for (JsonNode reference : contract.findValues("$ref")) {
      String pointer = reference.asText();
      assertThat(pointer).startsWith("#/");
      assertThat(contract.at(pointer.substring(1)).isMissingNode()).as(pointer).isFalse();
    }
  }

  @Test
  void everyExampleBodyIsAccepted() throws Exception {
    Decode decode = new Decode(Limits.DEFAULT);
    JsonBody json = new JsonBody(Limits.DEFAULT);
    int examples = 0;
    for (Route route : server.server.router().routes()) {
      JsonNode content = operation(route).path("requestBody").path("content");
      for (JsonNode example : content.path("application/json").path("examples")) {
        ObjectNode body =
            json.parse(example.path("value").toString().getBytes(StandardCharsets.UTF_8));
        switch (route.name()) {
          case "POST /v1/sandboxes" -> decode.provision(body);
          case "PATCH /v1/sandboxes/{id}" -> decode.patch(body);
          case "POST /v1/sandboxes/{id}/calls" -> decode.call(body);
          case "POST /v1/calls/{id}/stdin" -> decode.stdin(body);
          case "POST /v1/calls/{id}/signal" -> decode.signal(body);
          case "POST /v1/calls/{id}/cancel" -> decode.empty(body);
          case "POST /v1/keys" -> decode.key(body);
          default -> throw new AssertionError("no decoder for an example of " + route.name());
        }
        examples++;
      }
    }
    assertThat(examples).isGreaterThan(20);
  }

  /// Every member that an answer has is one that its schema names.
  @Test
  void answersHaveNoMemberThatTheContractDoesNotName() throws Exception {
    JsonNode run =
        RunningServer.json(
            server.post(
                "/v1/sandboxes",
                "{\"run\":{\"argv\":[\"x\"]},\"outputs\":[\"a\"],\"network\":{\"allow\":[]}}"));
    assertNamed("RunResult", run);
    assertNamed("Sandbox", run.path("sandbox"));
    assertNamed("Call", run.path("call"));
    assertNamed("Usage", run.path("call").path("usage"));
    assertNamed("Output", run.path("outputs").get(0));
    String id = run.path("sandbox").path("id").asText();
    JsonNode page = RunningServer.json(server.get("/v1/sandboxes/" + id + "/events"));
    assertNamed("EventPage", page);
    assertNamed("Event", page.path("events").get(1));
    assertNamed("TenantEventPage", RunningServer.json(server.get("/v1/events")));
    assertNamed("Problem", RunningServer.json(server.get("/v1/sandboxes?x=1")));
    JsonNode key =
        RunningServer.json(
            server.as(FakeCore.OPERATOR, "POST", "/v1/keys", "{\"name\":\"contract\"}"));
    assertNamed("Key", ((ObjectNode) key).without("key"));
    server.core.files.put("a", new byte[1]);
    assertNamed("File", RunningServer.json(server.get("/v1/sandboxes/" + id + "/files/a?stat=1")));
    assertNamed("Listing", RunningServer.json(server.get("/v1/sandboxes/" + id + "/files")));
    JsonNode pools = RunningServer.json(server.as(FakeCore.OPERATOR, "GET", "/v1/pools", ""));
    assertNamed("PoolList", pools);
    assertNamed("Pool", pools.path("pools").get(0));
    assertNamed("SandboxPage", RunningServer.json(server.get("/v1/sandboxes?limit=1")));
  }

  private static void assertNamed(String schema, JsonNode answer) {
    JsonNode declared = contract.path("components").path("schemas").path(schema);
    List<String> members = answer.properties().stream().map(Map.Entry::getKey).toList();
    Set<String> named = new HashSet<>();
    declared.path("properties").properties().forEach(p -> named.add(p.getKey()));
    assertThat(named).as(schema).containsAll(members);
    for (JsonNode required : declared.path("required")) {
      assertThat(members).as(schema).contains(required.asText());
    }
  }
}
