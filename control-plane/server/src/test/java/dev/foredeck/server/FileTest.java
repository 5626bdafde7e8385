package dev.foredeck.server;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatExceptionOfType;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.Socket;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/// The workspace as bytes, both ways.
class FileTest {
  private final RunningServer server = new RunningServer();
  private String files = "";

  @BeforeEach
  void create() throws Exception {
    files = "/v1/sandboxes/" + server.sandbox() + "/files";
  }

  @AfterEach
  void stop() {
    server.close();
  }

  private static byte[] noise(int length) {
    byte[] bytes = new byte[length];
    new Random(5).nextBytes(bytes);
    return bytes;
  }

  private static byte[] beginUpload(String path, int length) {
    String head = "PUT " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: " + length;
    return (head + "\r\nAuthorization: Bearer developer-key\r\n\r\n")
        .getBytes(StandardCharsets.US_ASCII);
  }

  @Test
  void keepsEveryByteBothWays() throws Exception {
    byte[] bytes = noise(9_000_001);
    var put =
        server.request(
            FakeCore.DEVELOPER, "PUT", files + "/a/b%20c.bin", BodyPublishers.ofByteArray(bytes));
    HttpResponse<String> written = server.send(put.expectContinue(true));
    assertThat(written.statusCode()).isEqualTo(200);
    assertThat(RunningServer.json(written).path("path").asText()).isEqualTo("a/b c.bin");
    assertThat(RunningServer.json(written).path("size").asInt()).isEqualTo(bytes.length);
    HttpResponse<byte[]> read =
        server.bytes(
            server.request(
                FakeCore.DEVELOPER, "GET", files + "/a/b%20c.bin", BodyPublishers.noBody()));
    assertThat(read.body()).isEqualTo(bytes);
    assertThat(read.headers().firstValue("X-Content-Type-Options")).contains("nosniff");
    assertThat(read.headers().firstValue("Content-Disposition")).contains("attachment");
    HttpResponse<String> chunked =
        server.send(
            server.request(
                FakeCore.DEVELOPER,
                "PUT",
                files + "/chunked",
                BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(bytes))));
    assertThat(chunked.statusCode()).isEqualTo(200);
    assertThat(server.core.files.get("chunked")).isEqualTo(bytes);
  }

  @Test
  void writesNothingWhenTheClientGoesInTheMiddle() throws Exception {
    try (Socket socket = new Socket(InetAddress.getLoopbackAddress(), server.port)) {
      socket.getOutputStream().write(beginUpload(files + "/half.txt", 1000));
      socket.getOutputStream().write(new byte[4]);
      socket.getOutputStream().flush();
      server.core.await(() -> server.server.working() == 1);
    }
    server.core.await(() -> server.core.abortedUploads == 1);
    assertThat(server.core.files).doesNotContainKey("half.txt");
    server.core.await(() -> server.server.working() == 0);
  }

  @Test
  void refusesAFileBeyondTheLimitDeclaredOrNot() throws Exception {
    try (RunningServer small =
        new RunningServer(RunningServer.limits(16, 16, 100_000), RunningServer.patient())) {
      String target = "/v1/sandboxes/" + small.sandbox() + "/files/large";
      byte[] bytes = noise(100_001);
      HttpResponse<String> declared =
          small.send(
              small.request(FakeCore.DEVELOPER, "PUT", target, BodyPublishers.ofByteArray(bytes)));
      assertThat(declared.statusCode()).isEqualTo(413);
      assertThat(small.core.abortedUploads).isZero();
      HttpResponse<String> actual =
          small.send(
              small.request(
                  FakeCore.DEVELOPER,
                  "PUT",
                  target,
                  BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(bytes))));
      assertThat(actual.statusCode()).isEqualTo(413);
      assertThat(RunningServer.json(actual).path("code").asText()).isEqualTo("file-too-large");
      assertThat(small.core.files).isEmpty();
    }
  }

  @Test
  void anUploadInWorkTakesRoomAndHealthDoesNot() throws Exception {
    try (RunningServer small =
            new RunningServer(RunningServer.limits(1, 16, 100_000), RunningServer.patient());
        Socket socket = new Socket(InetAddress.getLoopbackAddress(), small.port)) {
      String sandbox = small.sandbox();
      socket.getOutputStream().write(beginUpload("/v1/sandboxes/" + sandbox + "/files/x", 10));
      small.core.await(() -> small.server.working() == 1);
      HttpResponse<String> busy = small.get("/v1/sandboxes");
      assertThat(busy.statusCode()).isEqualTo(429);
      assertThat(busy.headers().firstValue("Retry-After")).contains("1");
      assertThat(RunningServer.json(busy).path("code").asText()).isEqualTo("busy");
      assertThat(small.get("/healthz").statusCode()).isEqualTo(200);
      socket.getOutputStream().write(new byte[10]);
      small.core.await(() -> small.server.working() == 0);
      assertThat(small.get("/v1/sandboxes").statusCode()).isEqualTo(200);
    }
  }

  @Test
  void listsStatsMovesAndRemoves() throws Exception {
    server.core.files.put("dir/a.txt", "a".getBytes(StandardCharsets.UTF_8));
    JsonNode list = RunningServer.json(server.get(files + "/dir"));
    assertThat(list.path("entries").get(0).path("path").asText()).isEqualTo("dir/a.txt");
    assertThat(RunningServer.json(server.get(files)).path("entries")).hasSize(1);
    assertThat(server.get(files + "/dir?list=1&depth=17").statusCode()).isEqualTo(400);
    JsonNode stat = RunningServer.json(server.get(files + "/dir/a.txt?stat=1"));
    assertThat(stat.path("kind").asText()).isEqualTo("file");
    HttpResponse<String> head = server.as(FakeCore.DEVELOPER, "HEAD", files + "/dir/a.txt", "");
    assertThat(head.headers().firstValue("Content-Length")).contains("1");
    assertThat(head.headers().firstValue("X-Foredeck-Kind")).contains("file");
    assertThat(
            server
                .as(FakeCore.DEVELOPER, "POST", files + "/dir/a.txt?move-to=b/c", "")
                .statusCode())
        .isEqualTo(204);
    assertThat(server.core.files).containsOnlyKeys("b/c");
    assertThat(server.as(FakeCore.DEVELOPER, "POST", files + "/b/c", "").statusCode())
        .isEqualTo(400);
    assertThat(server.as(FakeCore.DEVELOPER, "DELETE", files + "/b/c", "").statusCode())
        .isEqualTo(204);
    assertThat(server.get(files + "/b/c").statusCode()).isEqualTo(404);
    assertThat(server.as(FakeCore.DEVELOPER, "HEAD", files + "/b/c", "").statusCode())
        .isEqualTo(404);
  }

  @Test
  void refusesPathsThatLeaveTheWorkspaceOrAreNoPaths() throws Exception {
    String[] bad = {
      "../etc/passwd",
      "a/../../b",
      "%2e%2e/x",
      "%2E%2e/x",
      "a/%2e%2e",
      ".%2e/x",
      "%252e%252e/x",
      "/etc/passwd",
      "a//b",
      "%2fetc",
      "a%2fb",
      "a%00b",
      "a%5cb",
      "%ff",
      "%c0%ae%c0%ae/x",
      "%zz",
      "%",
      "a%2",
      "b/",
      "x".repeat(256),
      "y/".repeat(2500) + "z"
    };
    int before = server.core.operations.size();
    for (String path : bad) {
      String answer =
          server.raw(
              "PUT %s/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer developer-key\r\nContent-Length: 1\r\n\r\nx"
                  .formatted(files, path));
      assertThat(answer).as(path).startsWith("HTTP/1.1 400 ").contains("\"bad-value\"");
    }
    assertThat(server.core.operations).hasSize(before);
  }

  @Test
  void cutsADownloadThatIsShorterThanItPromised() throws Exception {
    server.core.files.put("shrinks", noise(200_000));
    server.core.shrinks = true;
    var request =
        server.request(FakeCore.DEVELOPER, "GET", files + "/shrinks", BodyPublishers.noBody());
    assertThatExceptionOfType(IOException.class).isThrownBy(() -> server.bytes(request));
  }
}
