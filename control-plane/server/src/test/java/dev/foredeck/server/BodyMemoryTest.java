package dev.foredeck.server;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Limits;
import java.io.ByteArrayInputStream;
import java.net.InetAddress;
import java.net.Socket;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// Many large bodies at once are answered or refused, and what they took is given back.
class BodyMemoryTest {
  private static final int MOST = 1 << 20;

  private final RunningServer server = new RunningServer(Limits.DEFAULT, listen());

  private static Listen listen() {
    Listen d = RunningServer.patient();
    return new Listen(
        d.host(), 0, d.connections(), MOST, d.head(), d.idle(), d.body(), d.heartbeat(), d.stall());
  }

  @AfterEach
  void stop() {
    server.close();
  }

  /// A request to create a sandbox, of about `bytes`.
  private static String body(int bytes) {
    return "{\"run\":{\"language\":\"bash\",\"code\":\"" + "x".repeat(bytes) + "\"}}";
  }

  private void awaitNothingTaken() throws InterruptedException {
    server.core.await(() -> server.server.bodyBytes() == 0 && server.server.working() == 0);
  }

  /// Declares a body and sends a part of it.
  private Socket half(String path, String method, int declared, int sent) throws Exception {
    Socket socket = new Socket(InetAddress.getLoopbackAddress(), server.port);
    String head =
        "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n".formatted(method, path, declared)
            + "Content-Type: application/json\r\nAuthorization: Bearer developer-key\r\n\r\n";
    socket.getOutputStream().write(head.getBytes(StandardCharsets.US_ASCII));
    socket.getOutputStream().write(body(sent).getBytes(StandardCharsets.US_ASCII));
    socket.getOutputStream().flush();
    return socket;
  }

  @Test
  void manyLargeBodiesAreEachAnsweredOrRefused() throws Exception {
    int clients = 64;
    int answered = 0;
    try (Socket _ = half("/v1/sandboxes", "POST", MOST / 2, 100);
        var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      server.core.await(() -> server.server.bodyBytes() == MOST / 2);
      List<Future<HttpResponse<String>>> all = new ArrayList<>();
      for (int i = 0; i < clients; i++) {
        all.add(threads.submit(() -> server.post("/v1/sandboxes", body(MOST * 3 / 4))));
      }
      for (Future<HttpResponse<String>> one : all) {
        HttpResponse<String> answer = one.get(60, TimeUnit.SECONDS);
        assertThat(answer.statusCode()).as(answer.body()).isEqualTo(429);
        assertThat(RunningServer.json(answer).path("code").asText()).isEqualTo("busy");
        assertThat(answer.headers().firstValue("Retry-After")).contains("1");
      }
      assertThat(server.core.sandboxes).as("nothing was made").isEmpty();
      assertThat(server.get("/v1/sandboxes").statusCode()).isEqualTo(200);
      assertThat(server.post("/v1/sandboxes", body(1_000)).statusCode())
          .as("a small body needs no room")
          .isEqualTo(200);
    }
    awaitNothingTaken();
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<Future<HttpResponse<String>>> all = new ArrayList<>();
      for (int i = 0; i < clients; i++) {
        all.add(threads.submit(() -> server.post("/v1/sandboxes", body(MOST / 3))));
      }
      for (Future<HttpResponse<String>> one : all) {
        int status = one.get(60, TimeUnit.SECONDS).statusCode();
        assertThat(status).isIn(200, 429);
        answered += status == 200 ? 1 : 0;
      }
    }
    assertThat(answered).isPositive();
    awaitNothingTaken();
  }

  @Test
  void aBodyOfUnknownLengthTakesAsItGrows() throws Exception {
    byte[] large = body(MOST).getBytes(StandardCharsets.UTF_8);
    for (int size : new int[] {200_000, large.length}) {
      byte[] bytes = size == large.length ? large : body(size).getBytes(StandardCharsets.UTF_8);
      HttpResponse<String> answer =
          server.send(
              server.request(
                  FakeCore.DEVELOPER,
                  "POST",
                  "/v1/sandboxes",
                  BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(bytes)),
                  "Content-Type",
                  "application/json"));
      assertThat(answer.statusCode()).as(answer.body()).isEqualTo(size == 200_000 ? 200 : 429);
      awaitNothingTaken();
    }
  }

  @Test
  void whatWasTakenIsGivenBackOnEveryPath() throws Exception {
    String id = server.sandbox();
    // Refused: not JSON, of another type, an unknown field.
    String wrong = "x".repeat(100_000);
    assertThat(server.post("/v1/sandboxes", wrong).statusCode()).isEqualTo(400);
    assertThat(server.post("/v1/sandboxes", wrong, "Content-Type", "text/plain").statusCode())
        .isEqualTo(415);
    assertThat(server.post("/v1/sandboxes", "{\"a\":\"" + wrong + "\"}").statusCode())
        .isEqualTo(400);
    awaitNothingTaken();
    // A fault of ours.
    server.core.fails = java.util.Optional.of(new IllegalStateException("inside"));
    assertThat(server.post("/v1/sandboxes", body(100_000)).statusCode()).isEqualTo(500);
    server.core.fails = java.util.Optional.empty();
    awaitNothingTaken();
    // A client that goes in the middle, of a body and of an upload.
    Socket posting = half("/v1/sandboxes", "POST", MOST / 2, 100_000);
    server.core.await(() -> server.server.bodyBytes() == MOST / 2);
    posting.close();
    awaitNothingTaken();
    Socket putting = half("/v1/sandboxes/" + id + "/files/a", "PUT", 100 << 20, 100_000);
    server.core.await(() -> server.server.bodyBytes() == RequestBody.WINDOW);
    putting.close();
    awaitNothingTaken();
    // One that waits, or streams: its body has done its work.
    server.core.held = true;
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      Future<HttpResponse<String>> waits =
          threads.submit(() -> server.post("/v1/sandboxes", body(MOST / 2)));
      server.core.await(() -> server.core.calls.size() == 1);
      server.core.await(() -> server.server.bodyBytes() == 0);
      Future<HttpResponse<String>> streams =
          threads.submit(
              () -> server.post("/v1/sandboxes", body(MOST / 2), "Accept", "text/event-stream"));
      server.core.await(() -> server.core.openFeeds == 1);
      server.core.await(() -> server.server.bodyBytes() == 0);
      server.core.calls.keySet().forEach(server.core::finish);
      assertThat(waits.get(30, TimeUnit.SECONDS).statusCode()).isEqualTo(200);
      assertThat(streams.get(30, TimeUnit.SECONDS).statusCode()).isEqualTo(200);
    }
    awaitNothingTaken();
  }

  /// A stream that is larger than all the room there is goes through its window.
  @Test
  void anUploadNeedsRoomForItsWindowOnly() throws Exception {
    String files = "/v1/sandboxes/" + server.sandbox() + "/files/big";
    byte[] bytes = new byte[4 * MOST];
    var put = server.request(FakeCore.DEVELOPER, "PUT", files, BodyPublishers.ofByteArray(bytes));
    assertThat(server.send(put).statusCode()).isEqualTo(200);
    awaitNothingTaken();
  }
}
