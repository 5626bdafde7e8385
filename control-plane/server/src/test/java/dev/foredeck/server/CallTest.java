package dev.foredeck.server;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.foredeck.core.gate.ToolCall;
import dev.foredeck.server.RunningServer.Sse;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/// Tools of the gate over HTTP.
class CallTest {
  private final RunningServer server = new RunningServer();
  private String calls = "";

  @BeforeEach
  void create() throws Exception {
    calls = "/v1/sandboxes/" + server.sandbox() + "/calls";
  }

  @AfterEach
  void stop() {
    server.close();
  }

  private JsonNode tool(String json) throws Exception {
    HttpResponse<String> answer = server.post(calls, json);
    assertThat(answer.statusCode()).as(answer.body()).isEqualTo(200);
    return RunningServer.json(answer);
  }

  private String background() throws Exception {
    HttpResponse<String> answer =
        server.post(
            calls,
            "{\"tool\":\"process.start\",\"argv\":[\"cat\"],\"stdin\":true,\"background\":true}");
    assertThat(answer.statusCode()).isEqualTo(202);
    String id = RunningServer.json(answer).path("call").path("id").asText();
    assertThat(answer.headers().firstValue("Location")).contains("/v1/calls/" + id);
    return id;
  }

  @Test
  void waitsForAForegroundProcess() throws Exception {
    JsonNode answer =
        tool("{\"tool\":\"process.start\",\"argv\":[\"bash\",\"-lc\",\"true\"],\"cwd\":\"/tmp\"}");
    assertThat(answer.path("call").path("status").asText()).isEqualTo("exited");
    assertThat(answer.path("outputs")).isEmpty();
    assertThat(server.core.runs.getLast())
        .isEqualTo(
            new ToolCall.ProcessStart(
                List.of("bash", "-lc", "true"), "/tmp", Map.of(), Optional.empty(), false));
  }

  @Test
  void streamsOnlyTheCallsOwnEvents() throws Exception {
    HttpResponse<String> answer =
        server.post(
            calls,
            "{\"tool\":\"code.run\",\"language\":\"bash\",\"code\":\"true\"}",
            "Accept",
            "text/event-stream");
    assertThat(RunningServer.events(answer.body()).stream().map(Sse::event))
        .containsExactly("call.requested", "call.started", "output", "call.ended");
  }

  @Test
  void steersABackgroundProcess() throws Exception {
    server.core.held = true;
    String call = "/v1/calls/" + background();
    assertThat(RunningServer.json(server.get(call)).path("status").asText()).isEqualTo("pending");
    JsonNode accepted =
        RunningServer.json(server.post(call + "/stdin", "{\"text\":\"hi\\u0000\"}"));
    assertThat(accepted.path("accepted").asInt()).isEqualTo(3);
    assertThat(server.post(call + "/stdin", "{\"end\":true}").statusCode()).isEqualTo(200);
    assertThat(server.post(call + "/stdin", "{}").statusCode()).isEqualTo(400);
    assertThat(server.post(call + "/signal", "{\"signal\":\"SIGINT\"}").statusCode())
        .isEqualTo(200);
    assertThat(server.core.signals).containsExactly("INT");
    assertThat(server.post(call + "/signal", "{\"signal\":9}").statusCode()).isEqualTo(400);
    assertThat(server.post(call + "/cancel", "").statusCode()).isEqualTo(200);
    assertThat(server.post(call + "/cancel", "{\"x\":1}").statusCode()).isEqualTo(400);
    HttpResponse<String> resize = server.post(call + "/resize", "{}");
    assertThat(RunningServer.json(resize).path("code").asText()).isEqualTo("not-supported");
  }

  @Test
  void givesOutputByOffset() throws Exception {
    server.core.prints = "0123456789".repeat(200_000).getBytes(StandardCharsets.US_ASCII);
    String call = "/v1/calls/" + background() + "/output";
    HttpResponse<byte[]> all =
        server.bytes(
            server.request(
                FakeCore.DEVELOPER,
                "GET",
                call + "?channel=stdout&offset=5",
                BodyPublishers.noBody()));
    assertThat(all.body()).hasSize(1_999_995);
    assertThat(all.body()[0]).isEqualTo((byte) '5');
    assertThat(all.headers().firstValue("X-Foredeck-Ended")).contains("true");
    assertThat(server.get(call + "?offset=3&limit=4").body()).isEqualTo("3456");
    assertThat(server.get(call + "?offset=9999999").body()).isEmpty();
    assertThat(server.get(call + "?channel=stdin").statusCode()).isEqualTo(400);
    assertThat(server.get(call + "?offset=-1").statusCode()).isEqualTo(400);
  }

  @Test
  void hasFileToolsAsCalls() throws Exception {
    JsonNode written = tool("{\"tool\":\"file.write\",\"path\":\"a.txt\",\"content\":\"hey\"}");
    assertThat(written.path("tool").asText()).isEqualTo("file.write");
    assertThat(written.path("result").path("size").asInt()).isEqualTo(3);
    JsonNode read = tool("{\"tool\":\"file.read\",\"path\":\"a.txt\"}").path("result");
    assertThat(read.path("content").asText()).isEqualTo("hey");
    assertThat(read.path("truncated").asBoolean()).isFalse();
    server.core.files.put("big", new byte[1024 * 1024 + 1]);
    assertThat(
            tool("{\"tool\":\"file.read\",\"path\":\"big\"}")
                .path("result")
                .path("truncated")
                .asBoolean())
        .isTrue();
    assertThat(tool("{\"tool\":\"file.list\"}").path("result").path("entries")).hasSize(2);
    tool("{\"tool\":\"file.move\",\"path\":\"a.txt\",\"target\":\"b.txt\"}");
    assertThat(
            tool("{\"tool\":\"file.stat\",\"path\":\"b.txt\"}")
                .path("result")
                .path("mode")
                .asText())
        .isEqualTo("0644");
    tool("{\"tool\":\"file.remove\",\"path\":\"b.txt\"}");
    assertThat(server.core.files).containsOnlyKeys("big");
  }

  @Test
  void signalsOnlyCallsOfThatSandbox() throws Exception {
    String mine = background();
    tool("{\"tool\":\"process.signal\",\"call\":\"" + mine + "\",\"signal\":\"term\"}");
    assertThat(server.core.signals).containsExactly("TERM");
    calls = "/v1/sandboxes/" + server.sandbox() + "/calls";
    HttpResponse<String> other =
        server.post(
            calls, "{\"tool\":\"process.signal\",\"call\":\"" + mine + "\",\"signal\":\"TERM\"}");
    assertThat(other.statusCode()).isEqualTo(404);
  }

  @Test
  void refusesToolsThatAreNotThereYetByName() throws Exception {
    for (String tool : List.of("file.watch", "web.fetch", "port.expose", "mcp.call")) {
      HttpResponse<String> answer = server.post(calls, "{\"tool\":\"" + tool + "\",\"url\":\"x\"}");
      assertThat(answer.statusCode()).isEqualTo(400);
      assertThat(RunningServer.json(answer).path("code").asText()).isEqualTo("not-supported");
    }
    JsonNode unknown = RunningServer.json(server.post(calls, "{\"tool\":\"file.raed\"}"));
    assertThat(unknown.path("detail").asText()).contains("did you mean `file.read`?");
  }
}
