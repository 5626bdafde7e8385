package dev.foredeck.server;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.foredeck.core.Id;
import dev.foredeck.core.gate.ToolCall;
import dev.foredeck.core.sandbox.ProvisionRequest;
import dev.foredeck.server.RunningServer.Sse;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// The one call: create, run, stream or wait.
class ProvisioningTest {
  private static final String HELLO = "{\"run\":{\"argv\":[\"echo\",\"hello\"]}}";
  private final RunningServer server = new RunningServer();

  @AfterEach
  void stop() {
    server.close();
  }

  @Test
  void createsWithDefaultsFromAnEmptyObject() throws Exception {
    HttpResponse<String> answer = server.post("/v1/sandboxes", "{}");
    assertThat(answer.statusCode()).isEqualTo(201);
    JsonNode sandbox = RunningServer.json(answer);
    assertThat(answer.headers().firstValue("Location"))
        .contains("/v1/sandboxes/" + sandbox.path("id").asText());
    assertThat(sandbox.path("destroy").asText()).isEqualTo("on-ttl");
    assertThat(server.core.requests.getFirst().destroyOnExit()).isEmpty();
  }

  @Test
  void decodesEveryField() throws Exception {
    server.post(
        "/v1/sandboxes",
        """
        {"template":"python","resources":{"cpu":"500m","memory":"1Gi","disk":2147483648},"ttl":"1h30m",
         "policy":"default@3","env":{"K":"V"},"labels":{"team":"growth"},
         "files":[{"path":"./data.csv","content":"a,b\\n"},{"path":"x/y.bin","base64":"AAEC"}],
         "network":{"allow":["pypi.org","*.example.com:8443"]},
         "run":{"language":"python","code":"print(1)","cwd":"x","timeout":"500ms","env":{"A":"B"}},
         "outputs":["chart.png"],"destroy":"on-ttl"}
        """);
    ProvisionRequest request = server.core.requests.getFirst();
    assertThat(request.template()).contains("python");
    assertThat(request.cpuMillis()).hasValue(500);
    assertThat(request.memoryBytes()).hasValue(1L << 30);
    assertThat(request.diskBytes()).hasValue(1L << 31);
    assertThat(request.ttl()).contains(Duration.ofMinutes(90));
    assertThat(request.policy()).contains("default@3");
    assertThat(request.env()).isEqualTo(Map.of("K", "V"));
    assertThat(request.labels()).isEqualTo(Map.of("team", "growth"));
    assertThat(request.files().getFirst().path()).isEqualTo("data.csv");
    assertThat(request.files().getLast().bytes()).containsExactly(0, 1, 2);
    assertThat(request.networkAllow()).contains(List.of("pypi.org", "*.example.com:8443"));
    assertThat(request.run())
        .contains(
            new ToolCall.CodeRun(
                "python",
                "print(1)",
                "/workspace/x",
                Map.of("A", "B"),
                java.util.Optional.of(Duration.ofMillis(500)),
                false));
    assertThat(request.outputs()).containsExactly("chart.png");
    assertThat(request.destroyOnExit()).contains(false);
  }

  @Test
  void streamsTheWholeLogUntilTheSandboxIsGone() throws Exception {
    HttpResponse<String> answer =
        server.post("/v1/sandboxes", HELLO, "Accept", "text/event-stream");
    assertThat(answer.statusCode()).isEqualTo(200);
    assertThat(answer.headers().firstValue("Content-Type")).contains("text/event-stream");
    assertThat(answer.body()).startsWith("retry: 1000\n\n");
    List<Sse> events = RunningServer.events(answer.body());
    assertThat(events.stream().map(Sse::event))
        .containsExactly(
            "sandbox.phase",
            "call.requested",
            "sandbox.phase",
            "sandbox.phase",
            "call.started",
            "output",
            "call.ended",
            "sandbox.phase",
            "sandbox.phase");
    assertThat(events.stream().map(e -> e.id().orElseThrow()))
        .containsExactly("1", "2", "3", "4", "5", "6", "7", "8", "9");
    JsonNode output = events.get(5).data();
    assertThat(output.properties().stream().map(Map.Entry::getKey))
        .containsExactly("seq", "time", "type", "sandbox", "call", "data");
    assertThat(output.path("data").path("text").asText()).isEqualTo("hello\n");
    assertThat(answer.headers().firstValue("X-Foredeck-Sandbox"))
        .contains(output.path("sandbox").asText());
  }

  @Test
  void endsTheStreamWithTheCallWhenTheSandboxStays() throws Exception {
    HttpResponse<String> answer =
        server.post(
            "/v1/sandboxes",
            "{\"run\":{\"argv\":[\"echo\"]},\"destroy\":\"on-ttl\",\"outputs\":[\"no.txt\"]}",
            "Accept",
            "text/event-stream");
    List<Sse> events = RunningServer.events(answer.body());
    assertThat(events.getLast().event()).isEqualTo("call.ended");
    assertThat(events.get(events.size() - 2).event()).isEqualTo("call.output");
  }

  @Test
  void endsTheStreamWithoutARunWhenTheSandboxIsReady() throws Exception {
    HttpResponse<String> answer = server.post("/v1/sandboxes", "{}", "Accept", "text/event-stream");
    Sse last = RunningServer.events(answer.body()).getLast();
    assertThat(last.data().path("data").path("phase").asText()).isEqualTo("ready");
  }

  @Test
  void waitsForTheRunAndAnswersWithItsResult() throws Exception {
    server.core.held = true;
    server.core.exitCode = 3;
    server.core.files.put("chart.png", new byte[] {1, 2, 3});
    Thread finisher =
        Thread.ofVirtual()
            .start(() -> {
              try {
                server.core.await(() -> !server.core.calls.isEmpty());
                server.core.finish(server.core.calls.keySet().iterator().next());
              } catch (InterruptedException e) {
                throw new IllegalStateException(e);
              }
            });
    HttpResponse<String> answer =
        server.post(
            "/v1/sandboxes",
            "{\"run\":{\"argv\":[\"echo\"]},\"outputs\":[\"chart.png\",\"gone.txt\"]}");
    finisher.join();
    assertThat(answer.statusCode()).isEqualTo(200);
    JsonNode json = RunningServer.json(answer);
    assertThat(json.path("call").path("exitCode").asInt()).isEqualTo(3);
    assertThat(json.path("call").path("stdout").asText()).isEqualTo("hello\n");
    assertThat(json.path("outputs").get(0).path("base64").asText())
        .isEqualTo(Base64.getEncoder().encodeToString(new byte[] {1, 2, 3}));
    assertThat(json.path("outputs").get(1).path("missing").asText()).isEqualTo("no such file");
    assertThat(json.path("sandbox").path("phase").asText()).isEqualTo("gone");
  }

  @Test
  void namesLargeOutputsByReference() throws Exception {
    server.core.files.put("big file.bin", new byte[300 * 1024]);
    JsonNode json =
        RunningServer.json(
            server.post(
                "/v1/sandboxes", "{\"run\":{\"argv\":[\"x\"]},\"outputs\":[\"big file.bin\"]}"));
    JsonNode output = json.path("outputs").get(0);
    assertThat(output.has("base64")).isFalse();
    assertThat(output.path("size").asInt()).isEqualTo(300 * 1024);
    String href = output.path("href").asText();
    assertThat(href).endsWith("/outputs/big%20file.bin");
    assertThat(server.get(href).body()).hasSize(300 * 1024);
  }

  @Test
  void showsBinaryOutputAsBase64AndCutsTailsBetweenCharacters() throws Exception {
    server.core.prints = new byte[] {(byte) 0xff, 0};
    JsonNode binary = RunningServer.json(server.post("/v1/sandboxes", HELLO)).path("call");
    assertThat(binary.has("stdout")).isFalse();
    assertThat(binary.path("stdoutBase64").asText()).isEqualTo("/wA=");
    // 1 MiB of tail is no multiple of the three bytes of a euro sign: the cut falls inside of one.
    server.core.prints = "€".repeat(400_000).getBytes(StandardCharsets.UTF_8);
    JsonNode text = RunningServer.json(server.post("/v1/sandboxes", HELLO)).path("call");
    assertThat(text.path("truncated").asBoolean()).isTrue();
    assertThat(text.path("stdout").asText()).isEqualTo("€".repeat(1024 * 1024 / 3));
  }

  @Test
  void cancelsNothingWhenTheClientGoes() throws Exception {
    server.core.held = true;
    var answer =
        server.stream(
            server.request(
                FakeCore.DEVELOPER,
                "POST",
                "/v1/sandboxes",
                java.net.http.HttpRequest.BodyPublishers.ofString(HELLO),
                "Accept",
                "text/event-stream",
                "Content-Type",
                "application/json"));
    server.core.await(() -> server.core.openFeeds == 1);
    answer.body().close();
    server.core.await(() -> server.core.openFeeds == 0);
    Id call = server.core.calls.keySet().iterator().next();
    assertThat(server.core.callOf(call).status().ended()).isFalse();
    server.core.finish(call);
    assertThat(RunningServer.json(server.get("/v1/calls/" + call)).path("status").asText())
        .isEqualTo("exited");
  }

  @Test
  void attachesARepeatUnderTheSameKeyToTheFirst() throws Exception {
    String[] key = {"Idempotency-Key", "abc-1"};
    String first = server.post("/v1/sandboxes", HELLO, key).body();
    assertThat(server.post("/v1/sandboxes", HELLO, key).body()).isEqualTo(first);
    assertThat(server.core.sandboxes).hasSize(1);
    var idempotency = server.core.lastOperation().idempotency().orElseThrow();
    HttpResponse<String> other = server.post("/v1/sandboxes", "{}", key);
    assertThat(other.statusCode()).isEqualTo(409);
    assertThat(RunningServer.json(other).path("code").asText()).isEqualTo("idempotency-mismatch");
    assertThat(idempotency.key()).isEqualTo("abc-1");
  }

  @Test
  void attachesARepeatToTheFirstFromItsFirstEventWhileItIsInFlight() throws Exception {
    server.core.held = true;
    List<CompletableFuture<String>> answers = new ArrayList<>();
    for (int i = 0; i < 2; i++) {
      CompletableFuture<String> answer = new CompletableFuture<>();
      answers.add(answer);
      Thread.ofVirtual()
          .start(() -> {
            try {
              answer.complete(
                  server
                      .post(
                          "/v1/sandboxes",
                          HELLO,
                          "Accept",
                          "text/event-stream",
                          "Idempotency-Key",
                          "k")
                      .body());
            } catch (Exception e) {
              answer.completeExceptionally(e);
            }
          });
    }
    server.core.await(() -> server.core.openFeeds == 2);
    assertThat(server.core.calls).hasSize(1);
    server.core.finish(server.core.calls.keySet().iterator().next());
    String first = answers.getFirst().get(20, TimeUnit.SECONDS);
    assertThat(first).contains("id: 1\n").contains("event: call.ended");
    assertThat(answers.getLast().get(20, TimeUnit.SECONDS)).isEqualTo(first);
  }
}
