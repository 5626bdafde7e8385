package dev.foredeck.server;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.foredeck.core.Id;
import dev.foredeck.core.Limits;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.server.RunningServer.Sse;
import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

/// All of a tenant's logs as one, by page and live.
class TenantFeedTest {
  private static final String SSE = "text/event-stream";

  private static InputStream open(RunningServer server, String query, String... more)
      throws Exception {
    var request =
        server.request(
            FakeCore.DEVELOPER, "GET", "/v1/events" + query, BodyPublishers.noBody(), more);
    HttpResponse<InputStream> answer = server.stream(request.header("Accept", SSE));
    assertThat(answer.statusCode()).isEqualTo(200);
    return answer.body();
  }

  /// The next `count` events of a live stream.
  private static List<Sse> read(BufferedReader lines, int count) throws Exception {
    List<Sse> events = new ArrayList<>();
    StringBuilder block = new StringBuilder();
    while (events.size() < count) {
      String line = lines.readLine();
      assertThat(line).as("the stream ended").isNotNull();
      block.append(line).append('\n');
      if (line.isEmpty()) {
        events.addAll(RunningServer.events(block.toString()));
        block.setLength(0);
      }
    }
    return events;
  }

  private static BufferedReader lines(InputStream in) {
    return new BufferedReader(new InputStreamReader(in, StandardCharsets.UTF_8));
  }

  private static String name(JsonNode event) {
    return event.path("sandbox").asText() + "/" + event.path("seq").asLong();
  }

  private static List<String> names(JsonNode page) {
    List<String> names = new ArrayList<>();
    page.path("events").forEach(event -> names.add(name(event)));
    return names;
  }

  @Test
  void pagesThroughTheLogsOfAllSandboxesOfTheTenant() throws Exception {
    try (RunningServer server = new RunningServer()) {
      String one = server.sandbox();
      String two = server.sandbox();
      server.as(FakeCore.STRANGER, "POST", "/v1/sandboxes", "{}");
      List<String> seen = new ArrayList<>();
      String next = "";
      while (true) {
        String after = next.isEmpty() ? "" : "&after=" + next;
        JsonNode page = RunningServer.json(server.get("/v1/events?limit=2" + after));
        seen.addAll(names(page));
        if (page.path("events").isEmpty()) {
          assertThat(page.path("next").asText()).isEqualTo(next);
          break;
        }
        next = page.path("next").asText();
      }
      assertThat(seen)
          .containsExactly(one + "/1", one + "/2", one + "/3", two + "/1", two + "/2", two + "/3");
      JsonNode ready =
          RunningServer.json(server.get("/v1/events?type=call.ended,sandbox.phase&limit=1"));
      assertThat(names(ready)).containsExactly(one + "/1");
      assertThat(names(RunningServer.json(server.get("/v1/events?type=call.ended")))).isEmpty();
      assertThat(names(RunningServer.json(server.get("/v1/events?after=latest")))).isEmpty();
    }
  }

  @Test
  void followsWhatHappensAndComesBackWithTheLastEventId() throws Exception {
    try (RunningServer server = new RunningServer()) {
      String one = server.sandbox();
      List<Sse> seen = new ArrayList<>();
      try (InputStream in = open(server, "");
          BufferedReader lines = lines(in)) {
        seen.addAll(read(lines, 3));
        String two = server.sandbox();
        server.core.move(new Id(one), Phase.GONE);
        seen.addAll(read(lines, 4));
        assertThat(seen.stream().map(e -> name(e.data())))
            .containsExactly(
                one + "/1", one + "/2", one + "/3", two + "/1", two + "/2", two + "/3", one + "/4");
      }
      server.core.await(() -> server.core.openFeeds == 0);
      String fifth = seen.get(4).id().orElseThrow();
      try (InputStream in = open(server, "?after=latest", "Last-Event-ID", fifth);
          BufferedReader lines = lines(in)) {
        assertThat(read(lines, 2)).isEqualTo(seen.subList(5, 7));
      }
    }
  }

  @Test
  void anIdAloneMovesTheCursorPastWhatAFilterHides() throws Exception {
    try (RunningServer server = new RunningServer()) {
      server.sandbox();
      try (InputStream in = open(server, "?type=call.ended");
          BufferedReader lines = lines(in)) {
        assertThat(lines.readLine()).isEqualTo("retry: 1000");
        assertThat(lines.readLine()).isEmpty();
        String id = lines.readLine();
        assertThat(id).startsWith("id: ");
        assertThat(lines.readLine()).isEmpty();
        JsonNode page =
            RunningServer.json(server.get("/v1/events?after=" + id.substring("id: ".length())));
        assertThat(page.path("events")).isEmpty();
      }
    }
  }

  @Test
  void refusesWhatIsNoCursorOfOursAndWhatIsNoType() throws Exception {
    try (RunningServer server = new RunningServer()) {
      server.sandbox();
      String next = RunningServer.json(server.get("/v1/events")).path("next").asText();
      for (String wrong : List.of("x", "17", next + "A", "A" + next, "A".repeat(4_000), "")) {
        HttpResponse<String> answer = server.get("/v1/events?after=" + wrong);
        assertThat(answer.statusCode()).as(wrong).isEqualTo(400);
        JsonNode violation = RunningServer.json(answer).path("violations").get(0);
        assertThat(violation.path("pointer").asText()).isEqualTo("query:after");
      }
      HttpResponse<String> header = server.get("/v1/events", "Accept", SSE, "Last-Event-ID", "7");
      assertThat(header.statusCode()).isEqualTo(400);
      assertThat(header.body()).contains("\"pointer\":\"header:Last-Event-ID\"");
      HttpResponse<String> type = server.get("/v1/events?type=call.end");
      assertThat(type.statusCode()).isEqualTo(400);
      assertThat(type.body()).contains("\"pointer\":\"query:type\"", "call.ended");
      // One of another tenant, whose event is not there for us.
      server.as(FakeCore.STRANGER, "POST", "/v1/sandboxes", "{}");
      String foreign =
          RunningServer.json(server.as(FakeCore.STRANGER, "GET", "/v1/events", ""))
              .path("next")
              .asText();
      for (String accept : List.of("application/json", SSE)) {
        HttpResponse<String> lost = server.get("/v1/events?after=" + foreign, "Accept", accept);
        assertThat(lost.statusCode()).as(accept).isEqualTo(409);
        assertThat(RunningServer.json(lost).path("code").asText()).isEqualTo("cursor-lost");
      }
    }
  }

  @Test
  void endsWithAProblemWhenTheKeyIsRevokedAndBeatsMeanwhile() throws Exception {
    Listen quick = RunningServer.listen(Duration.ofMillis(30), Duration.ofSeconds(60));
    try (RunningServer server = new RunningServer(Limits.DEFAULT, quick)) {
      try (InputStream in = open(server, "");
          BufferedReader lines = lines(in)) {
        assertThat(lines.readLine()).isEqualTo("retry: 1000");
        assertThat(lines.readLine()).isEmpty();
        assertThat(lines.readLine()).isEqualTo(":");
        server.core.revoked.add(FakeCore.DEVELOPER);
        Sse last = read(lines, 1).getFirst();
        assertThat(last.event()).isEqualTo("problem");
        assertThat(last.data().path("code").asText()).isEqualTo("unauthenticated");
      }
      server.core.await(() -> server.core.openFeeds == 0);
    }
  }

  /// What a client is refused for must not have happened.
  @Test
  void aStreamThatFindsNoPlaceIsRefusedBeforeAnythingIsRecorded() throws Exception {
    try (RunningServer server = new RunningServer()) {
      String id = server.sandbox();
      server.core.mostFeeds = 0;
      String run = "{\"run\":{\"argv\":[\"x\"]}}";
      String call = "{\"tool\":\"process.start\",\"argv\":[\"x\"]}";
      for (HttpResponse<String> refused :
          List.of(
              server.post("/v1/sandboxes", run, "Accept", SSE),
              server.post("/v1/sandboxes/" + id + "/calls", call, "Accept", SSE),
              server.get("/v1/events", "Accept", SSE))) {
        assertThat(refused.statusCode()).isEqualTo(429);
        assertThat(RunningServer.json(refused).path("code").asText()).isEqualTo("feed-quota");
      }
      assertThat(server.core.sandboxes).hasSize(1);
      assertThat(server.core.calls).isEmpty();
      server.core.mostFeeds = 1;
      assertThat(
              server
                  .post("/v1/sandboxes/sbx00000000000000001/calls", call, "Accept", SSE)
                  .statusCode())
          .as("a place that was not used is given back")
          .isEqualTo(404);
      for (int i = 0; i < 3; i++) {
        assertThat(server.post("/v1/sandboxes/" + id + "/calls", call, "Accept", SSE).statusCode())
            .isEqualTo(200);
        server.core.await(() -> server.core.openFeeds == 0);
      }
    }
  }
}
