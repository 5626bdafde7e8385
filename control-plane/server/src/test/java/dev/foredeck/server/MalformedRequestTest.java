package dev.foredeck.server;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.foredeck.core.Limits;
import java.net.InetAddress;
import java.net.Socket;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;

/// Requests that are wrong as HTTP or as JSON: each has a problem of its own and none reaches core.
class MalformedRequestTest {
  private static final RunningServer server = new RunningServer();
  private static final String HEAD =
      "Host: x\r\nAuthorization: Bearer developer-key\r\nContent-Type: application/json\r\n";
  private static final String CREATE = "POST /v1/sandboxes HTTP/1.1\r\n" + HEAD;

  @AfterAll
  static void stop() {
    server.close();
  }

  private static void assertRaw(String answer, int status, String code) throws Exception {
    assertThat(answer).matches("(?s)HTTP/1\\.[01] " + status + " .*");
    assertThat(answer.toLowerCase(java.util.Locale.ROOT))
        .contains("content-type: application/problem+json");
    assertThat(
            RunningServer.json(answer.substring(answer.indexOf("\r\n\r\n"))).path("code").asText())
        .isEqualTo(code);
    assertThat(server.core.requests).isEmpty();
  }

  private static JsonNode assertProblem(HttpResponse<String> answer, int status, String code)
      throws Exception {
    assertThat(answer.statusCode()).as(answer.body()).isEqualTo(status);
    assertThat(answer.headers().firstValue("Content-Type")).contains("application/problem+json");
    JsonNode problem = RunningServer.json(answer);
    assertThat(problem.path("code").asText()).isEqualTo(code);
    assertThat(problem.path("type").asText()).isEqualTo("https://foredeck.dev/problems/" + code);
    assertThat(problem.path("status").asInt()).isEqualTo(status);
    assertThat(problem.path("trace").asText()).matches("[0-9a-f]{32}");
    assertThat(server.core.requests).isEmpty();
    return problem;
  }

  @Test
  void refusesTwoContentLengths() throws Exception {
    assertRaw(
        server.raw(CREATE + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
        400,
        "malformed-request");
    assertRaw(server.raw(CREATE + "Content-Length: 2, 3\r\n\r\n{}"), 400, "malformed-request");
  }

  @Test
  void refusesContentLengthBesideTransferEncoding() throws Exception {
    assertRaw(
        server.raw(
            CREATE + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
        400,
        "malformed-request");
    assertRaw(
        server.raw(
            CREATE + "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
        400,
        "malformed-request");
  }

  @Test
  void refusesBrokenFraming() throws Exception {
    assertRaw(server.raw(CREATE + "Content-Length: -1\r\n\r\n{}"), 400, "malformed-request");
    assertRaw(server.raw(CREATE + "Content-Length: zwei\r\n\r\n{}"), 400, "malformed-request");
    assertRaw(server.raw("garbage\r\n\r\n"), 400, "malformed-request");
    assertRaw(
        server.raw("GET /healthz HTTP/1.1\r\nHost: x\r\nbad header\0: y\r\n\r\n"),
        400,
        "malformed-request");
  }

  @Test
  void refusesAnOversizedHead() throws Exception {
    assertRaw(
        server.raw("GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + "a".repeat(40_000) + "\r\n\r\n"),
        431,
        "head-too-large");
    assertRaw(
        server.raw("GET /" + "a".repeat(20_000) + " HTTP/1.1\r\nHost: x\r\n\r\n"),
        414,
        "uri-too-long");
  }

  @Test
  void closesAConnectionThatIsSlowWithItsHead() throws Exception {
    Listen hasty =
        new Listen(
            "127.0.0.1",
            0,
            100,
            1 << 20,
            Duration.ofMillis(200),
            Duration.ofMillis(200),
            Duration.ofMillis(300),
            Duration.ofSeconds(15),
            Duration.ofSeconds(60));
    try (RunningServer impatient = new RunningServer(Limits.DEFAULT, hasty)) {
      // A read that returns without silence: the server closed.
      assertThat(impatient.raw("GET /healthz HTT")).isEmpty();
      String answered = impatient.raw("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
      assertThat(answered).startsWith("HTTP/1.1 200 ").doesNotContain("(silent)");
      String slow = impatient.raw(CREATE + "Content-Length: 100\r\n\r\n{");
      assertRaw(slow, 408, "slow-body");
    }
  }

  @Test
  void refusesMoreConnectionsThanAllowed() throws Exception {
    Listen narrow =
        new Listen(
            "127.0.0.1",
            0,
            1,
            1 << 20,
            Duration.ofSeconds(10),
            Duration.ofSeconds(10),
            Duration.ofSeconds(10),
            Duration.ofSeconds(15),
            Duration.ofSeconds(60));
    try (RunningServer small = new RunningServer(Limits.DEFAULT, narrow);
        Socket first = new Socket(InetAddress.getLoopbackAddress(), small.port)) {
      first
          .getOutputStream()
          .write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".getBytes(StandardCharsets.US_ASCII));
      assertThat(first.getInputStream().read()).isEqualTo('H');
      try (Socket second = new Socket(InetAddress.getLoopbackAddress(), small.port)) {
        second.setSoTimeout(5000);
        assertThat(second.getInputStream().read()).isEqualTo(-1);
      }
    }
  }

  @Test
  void refusesUnknownRoutesAndMethods() throws Exception {
    assertProblem(server.get("/v2/sandboxes"), 404, "no-such-route");
    assertProblem(server.get("/v1/sandboxes/"), 404, "not-found");
    assertProblem(server.get("/v1//sandboxes"), 404, "no-such-route");
    HttpResponse<String> answer = server.as(FakeCore.DEVELOPER, "PUT", "/v1/sandboxes", "{}");
    assertProblem(answer, 405, "method-not-allowed");
    assertThat(answer.headers().firstValue("Allow")).contains("GET, POST");
    assertProblem(
        server.as(FakeCore.DEVELOPER, "OPTIONS", "/v1/sandboxes", ""), 405, "method-not-allowed");
    assertRaw(server.raw("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"), 404, "no-such-route");
  }

  @Test
  void refusesAMissingBodyAWrongTypeAndAnEncoding() throws Exception {
    assertProblem(server.post("/v1/sandboxes", ""), 400, "missing-body");
    assertProblem(
        server.post("/v1/sandboxes", "{}", "Content-Type", "text/plain"),
        415,
        "unsupported-media-type");
    assertProblem(
        server.post("/v1/sandboxes", "{}", "Content-Type", "application/json; charset=latin1"),
        415,
        "unsupported-media-type");
    assertProblem(
        server.post("/v1/sandboxes", "{}", "Content-Encoding", "gzip"),
        415,
        "unsupported-media-type");
  }

  @Test
  void refusesBodiesBeyondTheLimitDeclaredOrNot() throws Exception {
    String large = "{\"x\":\"" + "a".repeat(Limits.DEFAULT.bodyBytes()) + "\"}";
    assertProblem(server.post("/v1/sandboxes", large), 413, "body-too-large");
    byte[] bytes = large.getBytes(StandardCharsets.US_ASCII);
    HttpResponse<String> chunked =
        server.send(
            server.request(
                FakeCore.DEVELOPER,
                "POST",
                "/v1/sandboxes",
                BodyPublishers.ofInputStream(() -> new java.io.ByteArrayInputStream(bytes)),
                "Content-Type",
                "application/json"));
    assertProblem(chunked, 413, "body-too-large");
  }

  @Test
  void refusesBrokenJson() throws Exception {
    assertProblem(server.post("/v1/sandboxes", "{\"ttl\":"), 400, "bad-json");
    assertProblem(server.post("/v1/sandboxes", "{} {}"), 400, "bad-json");
    assertProblem(server.post("/v1/sandboxes", "[]"), 400, "wrong-type");
    assertProblem(server.post("/v1/sandboxes", "null"), 400, "wrong-type");
    assertProblem(server.post("/v1/sandboxes", "   "), 400, "wrong-type");
    assertProblem(
        server.post("/v1/sandboxes", "{\"ttl\":\"1s\",\"ttl\":\"2s\"}"), 400, "duplicate-field");
    assertProblem(
        server.post("/v1/sandboxes", "{\"a\":" + "[".repeat(100) + "]".repeat(100) + "}"),
        400,
        "too-deep");
    assertProblem(
        server.post("/v1/sandboxes", "{\"a\":" + "9".repeat(100) + "}"), 400, "too-large");
  }

  @Test
  void refusesInvalidUtf8() throws Exception {
    for (byte[] bad :
        new byte[][] {
          {(byte) 0xff}, {(byte) 0xc0, (byte) 0x80}, {(byte) 0xed, (byte) 0xa0, (byte) 0x80}
        }) {
      byte[] body = ("{\"template\":\"" + "??" + "\"}").getBytes(StandardCharsets.ISO_8859_1);
      byte[] all = new byte[body.length - 2 + bad.length];
      System.arraycopy(body, 0, all, 0, 13);
      System.arraycopy(bad, 0, all, 13, bad.length);
      System.arraycopy(body, 15, all, 13 + bad.length, 2);
      HttpResponse<String> answer =
          server.send(
              server.request(
                  FakeCore.DEVELOPER,
                  "POST",
                  "/v1/sandboxes",
                  BodyPublishers.ofByteArray(all),
                  "Content-Type",
                  "application/json"));
      assertProblem(answer, 400, "bad-utf8");
    }
    assertProblem(server.post("/v1/sandboxes", "{\"template\":\"\\ud800\"}"), 400, "bad-value");
  }

  @Test
  void refusesWrongQueriesAndHeaders() throws Exception {
    JsonNode problem = assertProblem(server.get("/v1/sandboxes?labels=a=b"), 400, "unknown-field");
    assertThat(problem.path("violations").get(0).path("pointer").asText())
        .isEqualTo("query:labels");
    assertThat(problem.path("detail").asText()).contains("did you mean `label`?");
    assertProblem(server.get("/v1/sandboxes?phase=redy"), 400, "bad-value");
    assertProblem(server.get("/v1/sandboxes?limit=0"), 400, "bad-value");
    assertProblem(server.get("/v1/sandboxes?limit=1&limit=2"), 400, "bad-value");
    assertProblem(server.get("/v1/sandboxes?after=x"), 400, "bad-value");
    assertRaw(
        server.raw("GET /v1/sandboxes?label=%zz HTTP/1.1\r\n" + HEAD + "\r\n"), 400, "bad-value");
    assertProblem(server.post("/v1/sandboxes", "{}", "Idempotency-Key", "a b"), 400, "bad-value");
    assertProblem(
        server.post("/v1/sandboxes", "{}", "Idempotency-Key", "a".repeat(256)), 400, "bad-value");
  }
}
