package dev.foredeck.server;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.foredeck.core.Id;
import dev.foredeck.core.Json;
import dev.foredeck.core.Limits;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.store.NewEvent;
import dev.foredeck.server.RunningServer.Sse;
import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.Socket;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

/// Logs by page and as live feeds: resumed, cut, bounded.
class FeedTest {
  private static final String SSE = "text/event-stream";

  private static HttpResponse<InputStream> open(RunningServer server, String id, String... more)
      throws Exception {
    String path = "/v1/sandboxes/" + id + "/events";
    var request = server.request(FakeCore.DEVELOPER, "GET", path, BodyPublishers.noBody(), more);
    return server.stream(request.header("Accept", SSE));
  }

  @Test
  void pagesThroughALog() throws Exception {
    try (RunningServer server = new RunningServer()) {
      String id = server.sandbox();
      JsonNode page =
          RunningServer.json(server.get("/v1/sandboxes/" + id + "/events?after=1&limit=1"));
      assertThat(page.path("events")).hasSize(1);
      assertThat(page.path("events").get(0).path("seq").asInt()).isEqualTo(2);
    }
  }

  @Test
  void resumesAfterTheLastEventIdAndEndsWithTheLog() throws Exception {
    try (RunningServer server = new RunningServer()) {
      String id = server.sandbox();
      server.core.move(new Id(id), Phase.GONE);
      HttpResponse<String> answer =
          server.get(
              "/v1/sandboxes/" + id + "/events?after=1", "Accept", SSE, "Last-Event-ID", "2");
      List<Sse> events = RunningServer.events(answer.body());
      assertThat(events.stream().map(e -> e.id().orElseThrow())).containsExactly("3", "4");
      assertThat(
              server
                  .get("/v1/sandboxes/" + id + "/events", "Accept", SSE, "Last-Event-ID", "x")
                  .statusCode())
          .isEqualTo(400);
    }
  }

  @Test
  void sendsHeartbeatsWhenNothingHappens() throws Exception {
    Listen quick = RunningServer.listen(Duration.ofMillis(30), Duration.ofSeconds(60));
    try (RunningServer server = new RunningServer(Limits.DEFAULT, quick)) {
      String id = server.sandbox();
      try (InputStream in = open(server, id, "Last-Event-ID", "3").body();
          BufferedReader lines =
              new BufferedReader(new InputStreamReader(in, StandardCharsets.UTF_8))) {
        assertThat(lines.readLine()).isEqualTo("retry: 1000");
        assertThat(lines.readLine()).isEmpty();
        assertThat(lines.readLine()).isEqualTo(":");
        assertThat(lines.readLine()).isEmpty();
        assertThat(lines.readLine()).isEqualTo(":");
      }
      server.core.await(() -> server.core.openFeeds == 0);
    }
  }

  @Test
  void endsWithAProblemWhenTheKeyIsRevoked() throws Exception {
    try (RunningServer server = new RunningServer()) {
      String id = server.sandbox();
      try (InputStream in = open(server, id).body()) {
        server.core.await(() -> server.core.openFeeds == 1);
        String key = server.core.principals.get(FakeCore.DEVELOPER) == null ? "" : keyOf(server);
        server.as(FakeCore.OPERATOR, "DELETE", "/v1/keys/" + key, "");
        List<Sse> events =
            RunningServer.events(new String(in.readAllBytes(), StandardCharsets.UTF_8));
        assertThat(events.getLast().event()).isEqualTo("problem");
        assertThat(events.getLast().id()).isEmpty();
        assertThat(events.getLast().data().path("code").asText()).isEqualTo("unauthenticated");
      }
    }
  }

  private static String keyOf(RunningServer server) {
    return server.core.principals.values().stream()
        .filter(p -> p.name().equals("dev"))
        .findFirst()
        .orElseThrow()
        .key()
        .value();
  }

  @Test
  void cutsAReaderThatStallsWhichThenComesBack() throws Exception {
    Listen quick = RunningServer.listen(Duration.ofMillis(100), Duration.ofMillis(400));
    try (RunningServer server = new RunningServer(Limits.DEFAULT, quick)) {
      Id id = new Id(server.sandbox());
      String text = "x".repeat(64 * 1024);
      for (int i = 0; i < 400; i++) {
        server.core.append(
            id,
            new NewEvent(
                FakeCore.NOW, "output", Optional.empty(), Json.object().put("text", text)));
      }
      try (Socket stalled = new Socket(InetAddress.getLoopbackAddress(), server.port)) {
        stalled.setReceiveBufferSize(16 * 1024);
        stalled
            .getOutputStream()
            .write(
                ("GET /v1/sandboxes/"
                        + id
                        + "/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
                        + "Authorization: Bearer developer-key\r\n\r\n")
                    .getBytes(StandardCharsets.US_ASCII));
        server.core.await(() -> server.core.openFeeds == 1);
        server.core.await(() -> server.core.openFeeds == 0);
        server.core.await(() -> server.server.working() == 0);
      }
      server.core.move(id, Phase.GONE);
      HttpResponse<String> back =
          server.get("/v1/sandboxes/" + id + "/events", "Accept", SSE, "Last-Event-ID", "3");
      assertThat(RunningServer.events(back.body())).hasSize(401);
    }
  }

  @Test
  void refusesMoreFeedsThanAllowedBeforeAnythingIsMade() throws Exception {
    try (RunningServer server =
        new RunningServer(RunningServer.limits(16, 1, 1000), RunningServer.patient())) {
      String id = server.sandbox();
      try (InputStream _ = open(server, id).body()) {
        server.core.await(() -> server.core.openFeeds == 1);
        HttpResponse<String> refused = server.post("/v1/sandboxes", "{\"run\":{\"argv\":[\"x\"]}}");
        assertThat(refused.statusCode()).isEqualTo(429);
        assertThat(refused.headers().firstValue("Retry-After")).contains("5");
        assertThat(RunningServer.json(refused).path("code").asText()).isEqualTo("feed-quota");
        assertThat(server.core.sandboxes).hasSize(1);
      }
      server.core.await(() -> server.core.openFeeds == 0 && server.server.working() == 0);
      assertThat(server.post("/v1/sandboxes", "{\"run\":{\"argv\":[\"x\"]}}").statusCode())
          .isEqualTo(200);
    }
  }

  @Test
  void aFeedDoesNotTakeTheRoomOfRequests() throws Exception {
    try (RunningServer server =
        new RunningServer(RunningServer.limits(1, 8, 1000), RunningServer.patient())) {
      String id = server.sandbox();
      try (InputStream _ = open(server, id).body()) {
        server.core.await(() -> server.core.openFeeds == 1);
        assertThat(server.get("/v1/sandboxes").statusCode()).isEqualTo(200);
      }
    }
  }

  @Test
  void stoppingEndsFeedsAndTellsThoseWhoWaitToAskAgain() throws Exception {
    try (RunningServer server = new RunningServer()) {
      String id = server.sandbox();
      server.core.held = true;
      CompletableFuture<HttpResponse<String>> waiting = new CompletableFuture<>();
      Thread.ofVirtual()
          .start(() -> {
            try {
              waiting.complete(server.post("/v1/sandboxes", "{\"run\":{\"argv\":[\"x\"]}}"));
            } catch (Exception e) {
              waiting.completeExceptionally(e);
            }
          });
      try (InputStream in = open(server, id).body()) {
        server.core.await(() -> server.core.openFeeds == 1 && server.core.calls.size() == 1);
        server.server.stop(Duration.ofSeconds(10));
        assertThat(new String(in.readAllBytes(), StandardCharsets.UTF_8)).contains("id: 3");
      }
      HttpResponse<String> answer = waiting.get(10, TimeUnit.SECONDS);
      assertThat(answer.statusCode()).isEqualTo(503);
      assertThat(RunningServer.json(answer).path("code").asText()).isEqualTo("shutting-down");
    }
  }
}
