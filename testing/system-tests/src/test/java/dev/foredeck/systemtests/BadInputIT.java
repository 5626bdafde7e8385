package dev.foredeck.systemtests;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.systemtests.Client.Answer;
import dev.foredeck.systemtests.Client.Event;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.Socket;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/// What a client does wrong, through the front door: each refusal is a problem that names what was
/// wrong and where, and nothing else changes. Sandboxes are simulated: none of this reaches one.
class BadInputIT {
  private static final String SANDBOXES = "/v1/sandboxes";
  private static final String PROBLEM = "application/problem+json";

  private static Plane plane;
  private static Client client;

  @BeforeAll
  static void start() {
    plane = Plane.start("simulated", Map.of());
    client = new Client(plane);
  }

  @AfterAll
  static void stop() {
    plane.close();
  }

  @AfterEach
  void destroyAll() {
    client.destroyAll();
  }

  // ---- bodies

  @Test
  void namesAnUnknownFieldWithASuggestion() {
    assertViolation(create("{\"tmeplate\":\"x\"}"), "/tmeplate", "unknown-field", "`template`");
    assertViolation(
        create("{\"resources\":{\"memroy\":\"1Gi\"}}"),
        "/resources/memroy",
        "unknown-field",
        "`memory`");
    assertViolation(
        create("{\"run\":{\"argv\":[\"true\"],\"timout\":\"1s\"}}"),
        "/run/timout",
        "unknown-field",
        "`timeout`");
    assertViolation(
        create("{\"files\":[{\"path\":\"a\",\"contents\":\"b\",\"content\":\"c\"}]}"),
        "/files/0/contents",
        "unknown-field",
        "`content`");
    assertViolation(
        client.post("/v1/keys", "{\"name\":\"a\",\"rôle\":\"operator\"}"),
        "/rôle",
        "unknown-field",
        "`role`");
    assertViolation(
        client.get(SANDBOXES + "?lable=a=b"), "query:lable", "unknown-field", "`label`");
    // Every fault at once: a client repairs its request once.
    JsonNode problem =
        problem(create("{\"tll\":\"1m\",\"env\":[],\"x\":1}"), 400, "wrong-type").json();
    assertThat(problem.path("violations").findValuesAsText("pointer"))
        .containsExactlyInAnyOrder("/tll", "/env", "/x");
  }

  @Test
  void refusesWrongTypes() {
    assertViolation(create("{\"env\":{\"A\":1}}"), "/env/A", "wrong-type", "a number");
    assertViolation(create("{\"ttl\":15}"), "/ttl", "wrong-type", "a text");
    assertViolation(create("{\"labels\":null}"), "/labels", "wrong-type", "null");
    assertViolation(create("{\"run\":\"ls\"}"), "/run", "wrong-type", "an object");
    assertViolation(create("{\"run\":{\"argv\":\"ls -l\"}}"), "/run/argv", "wrong-type", "a list");
    assertViolation(
        create("{\"run\":{\"argv\":[\"a\",{}]}}"), "/run/argv/1", "wrong-type", "an object");
    assertViolation(
        create("{\"run\":{\"argv\":[\"a\"],\"stdin\":\"yes\"}}"),
        "/run/stdin",
        "wrong-type",
        "true or false");
    for (String body : List.of("[]", "null", "\"text\"", "1")) {
      assertViolation(create(body), "", "wrong-type", "object");
    }
  }

  @Test
  void refusesValuesThatCannotBe() {
    assertViolation(create("{\"ttl\":\"soon\"}"), "/ttl", "bad-value", "`15m`");
    assertViolation(create("{\"ttl\":\"0s\"}"), "/ttl", "bad-value", "`15m`");
    assertViolation(create("{\"ttl\":\"99999d\"}"), "/ttl", "too-large", "24h");
    assertViolation(
        create("{\"resources\":{\"memory\":\"lots\"}}"), "/resources/memory", "bad-value", "`1Gi`");
    assertViolation(
        create("{\"resources\":{\"memory\":\"999999999999999Ti\"}}"),
        "/resources/memory",
        "bad-value",
        "");
    assertViolation(
        create("{\"resources\":{\"cpu\":1E400}}"), "/resources/cpu", "bad-value", "cores");
    assertViolation(create("{\"resources\":{\"cpu\":-1}}"), "/resources/cpu", "bad-value", "cores");
    assertViolation(create("{\"destroy\":\"never\"}"), "/destroy", "bad-value", "on-ttl");
    assertViolation(create("{\"destroy\":\"on-exit\"}"), "/destroy", "bad-value", "on-ttl");
    assertViolation(create("{\"outputs\":[\"a\"]}"), "/outputs", "bad-value", "run");
    assertViolation(create("{\"run\":{}}"), "/run/argv", "missing-field", "argv");
    assertViolation(create("{\"run\":{\"argv\":[]}}"), "/run/argv", "bad-value", "program");
    assertViolation(
        create("{\"run\":{\"language\":\"pyhton\",\"code\":\"1\"}}"),
        "/run/language",
        "bad-value",
        "`python`");
    assertViolation(
        create("{\"files\":[{\"path\":\"a\",\"base64\":\"%%%\"}]}"),
        "/files/0/base64",
        "bad-value",
        "base64");
    assertViolation(create("{\"env\":{\"1A\":\"x\"}}"), "/env", "bad-value", "names");
    assertViolation(create("{\"labels\":{\"a b\":\"x\"}}"), "/labels", "bad-value", "key");
  }

  @Test
  void refusesMissingBrokenAndForeignBodies() throws Exception {
    assertViolation(create(""), "", "missing-body", "`{}`");
    assertViolation(create("{\"ttl\":"), "", "bad-json", "line 1");
    assertViolation(create("{} {}"), "", "bad-json", "");
    assertViolation(create("{\"ttl\":\"1m\",\"ttl\":\"2m\"}"), "", "duplicate-field", "twice");
    assertViolation(
        create("{\"ttl\":\"1m\"}".getBytes(StandardCharsets.UTF_16)), "", "bad-utf8", "UTF-8");
    byte[] latin1 = "{\"env\":{\"A\":\"\u00e4\"}}".getBytes(StandardCharsets.ISO_8859_1);
    assertViolation(create(latin1), "", "bad-utf8", "UTF-8");
    // An overlong NUL, which lax decoders take.
    byte[] overlong = "{\"env\":{\"A\":\"??\"}}".getBytes(StandardCharsets.US_ASCII);
    overlong[13] = (byte) 0xc0;
    overlong[14] = (byte) 0x80;
    assertViolation(create(overlong), "", "bad-utf8", "UTF-8");
    assertViolation(create("{\"env\":{\"A\":\"\\ud800\"}}"), "/env/A", "bad-value", "surrogate");
    problem(
        client.send(
            client
                .request(SANDBOXES)
                .header("Content-Type", "text/plain")
                .POST(BodyPublishers.ofString("{}"))
                .build()),
        415,
        "unsupported-media-type");
    problem(
        client.post(SANDBOXES, "{}", "Content-Encoding", "gzip"), 415, "unsupported-media-type");
  }

  @Test
  void refusesDeepJson() {
    String deep = "{\"labels\":".repeat(65) + "{}" + "}".repeat(65);
    assertViolation(create(deep), "", "too-deep", "64");
    assertViolation(create("[".repeat(2_000_000)), "", "too-deep", "64");
    assertViolation(create("{\"a\":".repeat(1_000_000)), "", "too-deep", "64");
  }

  @Test
  void refusesOversizedBodies() throws Exception {
    int most = 16 * 1024 * 1024;
    // Declared: refused before a byte of it was sent.
    Raw declared = raw(head("POST", SANDBOXES, "Content-Length: " + (most + 1)), new byte[0]);
    problem(declared, 413, "body-too-large");
    assertThat(declared.text()).contains(Integer.toString(most));
    problem(
        raw(head("POST", SANDBOXES, "Content-Length: 99999999999999999999"), new byte[0]),
        400,
        "malformed-request");
    // Undeclared: refused when it passes the limit.
    byte[] chunk =
        (Integer.toHexString(1 << 20) + "\r\n" + " ".repeat(1 << 20) + "\r\n")
            .getBytes(StandardCharsets.US_ASCII);
    ByteArrayOutputStream chunks = new ByteArrayOutputStream();
    for (int i = 0; i < 16; i++) {
      chunks.writeBytes(chunk);
    }
    chunks.writeBytes("2\r\n{}\r\n0\r\n\r\n".getBytes(StandardCharsets.US_ASCII));
    problem(
        raw(head("POST", SANDBOXES, "Transfer-Encoding: chunked"), chunks.toByteArray()),
        413,
        "body-too-large");

    String file = "{\"files\":[{\"path\":\"a\",\"content\":\"" + "x".repeat(9 << 20) + "\"}]}";
    assertViolation(create(file), "/files/0/content", "too-large", "8388608");
    assertViolation(
        create("{\"run\":{\"argv\":[\"echo\",\"" + "x".repeat(1 << 20) + "\"]}}"),
        "/run/argv/1",
        "too-large",
        "bytes");
    ObjectNode many = Client.MAPPER.createObjectNode();
    for (int i = 0; i < 129; i++) {
      many.withObject("/env").put("V" + i, "x");
    }
    assertViolation(create(many.toString()), "/env", "too-large", "128");
  }

  @Test
  void refusesBrokenFraming() throws Exception {
    byte[] body = "{}".getBytes(StandardCharsets.US_ASCII);
    for (String lengths :
        List.of(
            "Content-Length: 2\r\nContent-Length: 3",
            "Content-Length: 2, 3",
            "Content-Length: 2\r\nTransfer-Encoding: chunked",
            "Content-Length: -2",
            "Content-Length: +2",
            "Content-Length: 0x2")) {
      Raw answer = raw(head("POST", SANDBOXES, lengths), body);
      problem(answer, 400, "malformed-request");
      // Whatever follows on such a connection must not be taken for a request.
      assertThat(answer.closed()).as(lengths).isTrue();
    }
    problem(raw("GARBAGE\r\n\r\n", new byte[0]), 400, "malformed-request");
    problem(
        raw(head("GET", SANDBOXES, "X-Long: " + "x".repeat(40_000)), new byte[0]),
        431,
        "head-too-large");
    problem(
        raw(head("GET", SANDBOXES + "?label=" + "x".repeat(20_000), "X: y"), new byte[0]),
        414,
        "uri-too-long");
    assertThat(count()).isZero();
  }

  @Test
  void refusesNul() {
    assertViolation(
        create("{\"run\":{\"argv\":[\"echo\",\"a\\u0000b\"]}}"), "/run/argv/1", "bad-value", "NUL");
    assertViolation(
        create("{\"run\":{\"argv\":[\"true\"],\"cwd\":\"a\\u0000b\"}}"),
        "/run/cwd",
        "bad-value",
        "NUL");
    assertViolation(create("{\"env\":{\"A\":\"\\u0000\"}}"), "/env/A", "bad-value", "NUL");
    assertViolation(create("{\"env\":{\"A\\u0000\":\"x\"}}"), "/env", "bad-value", "names");
    assertViolation(
        create("{\"files\":[{\"path\":\"a\\u0000\",\"content\":\"\"}]}"),
        "/files/0/path",
        "bad-value",
        "NUL");
    assertViolation(create("{\"template\":\"\\u0000\"}"), "/template", "bad-value", "NUL");
    assertViolation(create("{\"labels\":{\"a\":\"\\u0000\"}}"), "/labels/a", "bad-value", "NUL");
    assertViolation(client.get(SANDBOXES + "?label=a=%00"), "query:", "bad-value", "NUL");
    String sandbox = client.sandbox("{}");
    assertViolation(
        client.get(SANDBOXES + "/" + sandbox + "/files/a%00b"), "path:path", "bad-value", "NUL");
  }

  @Test
  void refusesPathsThatLeaveTheWorkspace() throws Exception {
    for (String path :
        List.of(
            "../a", "a/../../b", "..", "/etc/passwd", "a//b", "a\\\\b", "%2e%2e/a", "a%2fb", "")) {
      assertViolation(
          create("{\"files\":[{\"path\":\"" + path + "\",\"content\":\"\"}]}"),
          "/files/0/path",
          "bad-value",
          "");
      assertViolation(
          create("{\"run\":{\"argv\":[\"true\"]},\"outputs\":[\"" + path + "\"]}"),
          "/outputs/0",
          "bad-value",
          "");
    }
    assertViolation(
        create("{\"run\":{\"argv\":[\"true\"],\"cwd\":\"../..\"}}"), "/run/cwd", "bad-value", "..");
    String sandbox = client.sandbox("{}");
    String files = SANDBOXES + "/" + sandbox + "/files/";
    for (String path :
        List.of(
            "../x",
            "a/../../x",
            "%2e%2e/x",
            "%2E%2e%2Fx",
            "a%2Fb",
            "%252e%252e/x",
            "a%5cb",
            "a//b",
            "%ff",
            "%",
            "%zz",
            "a%00",
            "x".repeat(256))) {
      for (String method : List.of("GET", "PUT", "DELETE")) {
        problem(
            raw(head(method, files + path, "Content-Length: 0"), new byte[0]), 400, "bad-value");
      }
    }
    // One that walks out of the route itself is no file of this sandbox, nor anything else.
    problem(raw(head("GET", files + "../../../keys", "X: y"), new byte[0]), 400, "bad-value");
    assertThat(client.get(SANDBOXES + "/" + sandbox + "/files?list=1").json().path("entries"))
        .isEmpty();
  }

  // ---- what there is not, and what is not allowed

  @Test
  void namesWhatThereIs() {
    assertViolation(
        create("{\"template\":\"windows\"}"), "/template", "unknown-template", "there are: ");
    assertViolation(
        create("{\"policy\":\"lax\"}"), "/policy", "unknown-policy", "default, offline, open");
    assertViolation(create("{\"policy\":\"../default\"}"), "/policy", "bad-value", "lower-case");
    for (String host : List.of("", "http://x", "a b", "*.*", "x:99999", "[::1", "-a.com", "a..b")) {
      assertViolation(
          create("{\"network\":{\"allow\":[\"pypi.org\",\"" + host + "\"]}}"),
          "/network/allow/1",
          "bad-value",
          "");
    }
  }

  @Test
  void refusesMoreThanThePolicyAllows() {
    assertViolation(
        create("{\"resources\":{\"memory\":\"64Gi\"}}"),
        "/resources/memory",
        "not-allowed",
        "policy default@",
        "boundary.limits.memory");
    assertViolation(
        create("{\"resources\":{\"cpu\":\"3\"}}"),
        "/resources/cpu",
        "not-allowed",
        "boundary.limits.cpu");
    assertViolation(
        create("{\"resources\":{\"disk\":\"5Gi\"}}"),
        "/resources/disk",
        "not-allowed",
        "boundary.limits.disk");
    assertViolation(
        create("{\"ttl\":\"3h\"}"), "/ttl", "not-allowed", "boundary.limits.lifetime", "default@");
    assertViolation(
        create("{\"network\":{\"allow\":[\"pypi.org\",\"evil.example.net\"]}}"),
        "/network/allow/1",
        "not-allowed",
        "evil.example.net",
        "egress");
    assertViolation(
        create("{\"policy\":\"offline\",\"network\":{\"allow\":[\"pypi.org\"]}}"),
        "/network/allow/0",
        "not-allowed",
        "offline@");
    assertThat(count()).isZero();
    String sandbox = client.sandbox("{}");
    Answer patched =
        client.send(
            client
                .request(SANDBOXES + "/" + sandbox)
                .header("Content-Type", "application/json")
                .method("PATCH", BodyPublishers.ofString("{\"ttl\":\"3h\"}"))
                .build());
    assertViolation(patched, "/ttl", "not-allowed", "boundary.limits.lifetime");
  }

  @Test
  void namesTheRuleThatDeniesACall() {
    Answer denied = create("{\"run\":{\"argv\":[\"true\"],\"cwd\":\"/etc\"}}");
    JsonNode problem = problem(denied, 403, "policy-denied").json();
    assertThat(problem.path("policy").asText()).startsWith("default@");
    assertThat(problem.path("sandbox").asText()).isNotEmpty();
    // The refusal is in the log.
    JsonNode events =
        client.get(SANDBOXES + "/" + problem.path("sandbox").asText() + "/events").json();
    assertThat(events.path("events").findValuesAsText("type"))
        .contains("call.requested", "call.decided", "call.ended");
  }

  @Test
  void refusesWhatDoesNotExistYet() {
    assertViolation(
        create("{\"secrets\":[\"github-read\"]}"), "/secrets", "not-supported", "secrets");
    assertViolation(
        create("{\"run\":{\"argv\":[\"true\"],\"pty\":{\"rows\":1}}}"),
        "/run/pty",
        "not-supported",
        "pty");
    assertViolation(
        create("{\"run\":{\"language\":\"python\",\"code\":\"1\",\"context\":\"a\"}}"),
        "/run/context",
        "not-supported",
        "context");
    String sandbox = client.sandbox("{}");
    String calls = SANDBOXES + "/" + sandbox + "/calls";
    for (String tool : List.of("file.watch", "web.fetch", "port.expose", "mcp.call")) {
      assertViolation(
          client.post(calls, "{\"tool\":\"" + tool + "\",\"url\":\"x\"}"),
          "/tool",
          "not-supported",
          tool);
    }
    assertViolation(
        client.post(calls, "{\"tool\":\"proces.start\",\"argv\":[\"true\"]}"),
        "/tool",
        "bad-value",
        "`process.start`");
    assertViolation(client.post(calls, "{}"), "/tool", "missing-field", "process.start");
    String call = start(sandbox, "spin");
    assertViolation(
        client.post("/v1/calls/" + call + "/resize", "{\"rows\":1}"), "", "not-supported", "");
    assertViolation(
        client.get("/v1/calls/" + call + "/output?channel=pty"),
        "query:channel",
        "not-supported",
        "");
    assertViolation(
        client.get("/v1/calls/" + call + "/output?channel=stdin"),
        "query:channel",
        "bad-value",
        "");
    assertViolation(
        client.post("/v1/calls/" + call + "/signal", "{\"signal\":\"NOPE\"}"),
        "/signal",
        "bad-value",
        "");
    problem(client.get("/v1/nothing"), 404, "no-such-route");
    Answer wrong = client.put(SANDBOXES, new byte[0]);
    problem(wrong, 405, "method-not-allowed");
    assertThat(wrong.response().headers().firstValue("Allow")).hasValue("GET, POST");
  }

  // ---- keys and tenants

  @Test
  void refusesKeysThatMayNot() throws Exception {
    for (String authorization : List.of("Bearer fdk_wrong", "Bearer ", "Basic YTpi", plane.key())) {
      Answer answer =
          client.send(client.request(SANDBOXES).setHeader("Authorization", authorization).build());
      problem(answer, 401, "unauthenticated");
      assertThat(answer.response().headers().firstValue("WWW-Authenticate")).isPresent();
    }
    problem(
        raw("GET " + SANDBOXES + " HTTP/1.1\r\nHost: x\r\n\r\n", new byte[0]),
        401,
        "unauthenticated");

    JsonNode key = key("developer");
    String secret = key.path("key").asText();
    assertThat(as(secret, "GET", SANDBOXES, "").status()).isEqualTo(200);
    for (String[] route :
        new String[][] {
          {"GET", "/v1/keys", ""},
          {"POST", "/v1/keys", "{\"name\":\"x\",\"role\":\"operator\"}"},
          {"DELETE", "/v1/keys/" + key.path("id").asText(), ""}
        }) {
      problem(as(secret, route[0], route[1], route[2]), 403, "forbidden");
    }
    assertThat(client.delete("/v1/keys/" + key.path("id").asText()).status()).isEqualTo(204);
    problem(as(secret, "GET", SANDBOXES, ""), 401, "unauthenticated");
    problem(client.delete("/v1/keys/keyn0such0key0000000"), 404, "key-not-found");
  }

  @Test
  void hidesAnotherTenantsThings() throws Exception {
    String sandbox = client.sandbox("{}");
    String call = start(sandbox, "spin");
    String theirs = otherTenant();
    String own = SANDBOXES + "/" + sandbox;
    for (String[] route :
        new String[][] {
          {"GET", own, ""},
          {"PATCH", own, "{\"ttl\":\"1m\"}"},
          {"DELETE", own, ""},
          {"GET", own + "/events", ""},
          {"POST", own + "/calls", "{\"tool\":\"process.start\",\"argv\":[\"true\"]}"},
          {"GET", own + "/files?list=1", ""},
          {"GET", own + "/files/a", ""},
          {"PUT", own + "/files/a", "x"},
          {"DELETE", own + "/files/a", ""},
          {"GET", "/v1/calls/" + call, ""},
          {"GET", "/v1/calls/" + call + "/output", ""},
          {"GET", "/v1/calls/" + call + "/outputs/a", ""},
          {"POST", "/v1/calls/" + call + "/stdin", "{\"text\":\"x\"}"},
          {"POST", "/v1/calls/" + call + "/signal", "{\"signal\":\"KILL\"}"},
          {"POST", "/v1/calls/" + call + "/cancel", "{}"},
        }) {
      Answer hidden = as(theirs, route[0], route[1], route[2]);
      String code = problem(hidden, 404, "").json().path("code").asText();
      assertThat(code).as(route[1]).isIn("sandbox-not-found", "call-not-found");
      // The same as for what never was, but for the id.
      Answer never =
          as(
              theirs,
              route[0],
              route[1].replace(sandbox, "sbxn0such0sandbox00").replace(call, "calln0such0call0000"),
              route[2]);
      assertThat(never.json().path("code").asText()).as(route[1]).isEqualTo(code);
    }
    assertThat(as(theirs, "GET", SANDBOXES, "").json().path("sandboxes")).isEmpty();
    assertThat(as(theirs, "GET", "/v1/keys", "").json().path("keys")).hasSize(1);
    String mine = client.get("/v1/keys").json().path("keys").path(0).path("id").asText();
    problem(as(theirs, "DELETE", "/v1/keys/" + mine, ""), 404, "key-not-found");
    assertThat(client.get("/v1/calls/" + call).json().path("status").asText()).isEqualTo("running");
    // An idempotency key belongs to its tenant.
    assertThat(client.post(SANDBOXES, "{}", "Idempotency-Key", "shared").status()).isEqualTo(201);
    HttpRequest same =
        client
            .request(SANDBOXES)
            .setHeader("Authorization", "Bearer " + theirs)
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", "shared")
            .POST(BodyPublishers.ofString("{\"ttl\":\"1m\"}"))
            .build();
    Answer made = client.send(same);
    assertThat(made.status()).as(made.body()).isEqualTo(201);
    as(theirs, "DELETE", SANDBOXES + "/" + made.json().path("id").asText(), "");
  }

  @Test
  void cutsAnOpenFeedWhenItsKeyIsRevoked() throws Exception {
    String sandbox = client.sandbox("{}");
    JsonNode key = key("developer");
    HttpRequest feed =
        client
            .request(SANDBOXES + "/" + sandbox + "/events")
            .setHeader("Authorization", "Bearer " + key.path("key").asText())
            .header("Accept", "text/event-stream")
            .build();
    Future<List<Event>> reading = async(() -> client.stream(feed));
    Client.sleep(500);
    assertThat(reading.isDone()).isFalse();
    assertThat(client.delete("/v1/keys/" + key.path("id").asText()).status()).isEqualTo(204);
    List<Event> events = reading.get(30, TimeUnit.SECONDS);
    // The last thing it hears is why, without a seq, so that it does not count as read.
    assertThat(events.getLast().envelope().path("code").asText()).isEqualTo("unauthenticated");
    assertThat(events.stream().limit(events.size() - 1).map(Event::type))
        .containsOnly("sandbox.phase");
    problem(client.send(feed), 401, "unauthenticated");
  }

  // ---- calls

  @Test
  void holdsAnIdempotencyKeyToItsBody() {
    Answer first = client.post(SANDBOXES, "{\"ttl\":\"5m\"}", "Idempotency-Key", "k1");
    assertThat(first.status()).isEqualTo(201);
    Answer again = client.post(SANDBOXES, "{\"ttl\":\"5m\"}", "Idempotency-Key", "k1");
    assertThat(again.json().path("id")).isEqualTo(first.json().path("id"));
    problem(
        client.post(SANDBOXES, "{\"ttl\":\"6m\"}", "Idempotency-Key", "k1"),
        409,
        "idempotency-mismatch");
    // A body that is refused claims nothing.
    problem(client.post(SANDBOXES, "{\"x\":1}", "Idempotency-Key", "k2"), 400, "unknown-field");
    assertThat(client.post(SANDBOXES, "{}", "Idempotency-Key", "k2").status()).isEqualTo(201);
    assertThat(count()).isEqualTo(2);
    for (String bad : List.of("a b", "x".repeat(256))) {
      assertViolation(
          client.post(SANDBOXES, "{}", "Idempotency-Key", bad),
          "header:Idempotency-Key",
          "bad-value",
          "255");
    }
    assertViolation(
        client.post(SANDBOXES, "{}", "Idempotency-Key", "a", "Idempotency-Key", "b"),
        "header:Idempotency-Key",
        "bad-value",
        "once");
    String sandbox = first.json().path("id").asText();
    client.awaitPhase(sandbox, "ready"::equals);
    String calls = SANDBOXES + "/" + sandbox + "/calls";
    String call = "{\"tool\":\"process.start\",\"background\":true,\"argv\":[\"spin\"]}";
    Answer one = client.post(calls, call, "Idempotency-Key", "k1");
    assertThat(client.post(calls, call, "Idempotency-Key", "k1").json().path("call").path("id"))
        .isEqualTo(one.json().path("call").path("id"));
    problem(
        client.post(calls, call.replace("spin", "true"), "Idempotency-Key", "k1"),
        409,
        "idempotency-mismatch");
  }

  @Test
  void doesOnceWhatIsAskedForUnderAnIdempotencyKey() {
    String sandbox = client.sandbox("{}");
    String calls = SANDBOXES + "/" + sandbox + "/calls";
    String write = "{\"tool\":\"file.write\",\"path\":\"a\",\"content\":\"one\"}";
    Answer written = client.post(calls, write, "Idempotency-Key", "w");
    assertThat(written.status()).isEqualTo(200);
    // Moved away meanwhile: a repeat does not write it again.
    String move = SANDBOXES + "/" + sandbox + "/files/a?move-to=b";
    assertThat(client.post(move, "", "Idempotency-Key", "m").status()).isEqualTo(204);
    assertThat(client.post(move, "", "Idempotency-Key", "m").status()).isEqualTo(204);
    JsonNode again = client.post(calls, write, "Idempotency-Key", "w").json().path("result");
    assertThat(again.path("path")).isEqualTo(written.json().path("result").path("path"));
    assertThat(again.path("size")).isEqualTo(written.json().path("result").path("size"));
    problem(
        client.post(move.replace("=b", "=c"), "", "Idempotency-Key", "m"),
        409,
        "idempotency-mismatch");
    problem(
        client.post(calls, write.replace("one", "two"), "Idempotency-Key", "w"),
        409,
        "idempotency-mismatch");
    String remove = "{\"tool\":\"file.remove\",\"path\":\"b\"}";
    for (int i = 0; i < 2; i++) {
      assertThat(client.post(calls, remove, "Idempotency-Key", "r").status()).isEqualTo(200);
    }
    String missing = "{\"tool\":\"file.remove\",\"path\":\"nothing\"}";
    problem(client.post(calls, missing, "Idempotency-Key", "n"), 404, "file-not-found");
    problem(client.post(calls, missing, "Idempotency-Key", "n"), 409, "call-failed");
  }

  @Test
  void signalsCancelsAndWritesStdinOnceUnderAnIdempotencyKey() {
    String sandbox = client.sandbox("{}");
    String body =
        "{\"tool\":\"process.start\",\"background\":true,\"argv\":[\"cat\"],\"stdin\":true}";
    String id =
        client
            .post(SANDBOXES + "/" + sandbox + "/calls", body)
            .json()
            .path("call")
            .path("id")
            .asText();
    String call = "/v1/calls/" + id;
    String text = "{\"text\":\"hello\\n\"}";
    for (int i = 0; i < 2; i++) {
      Answer accepted = client.post(call + "/stdin", text, "Idempotency-Key", "s");
      assertThat(accepted.status()).isEqualTo(200);
      assertThat(accepted.json().path("accepted").asLong()).isEqualTo(6);
    }
    problem(
        client.post(call + "/stdin", text.replace("hello", "other"), "Idempotency-Key", "s"),
        409,
        "idempotency-mismatch");
    String signal = "{\"signal\":\"WINCH\"}";
    for (int i = 0; i < 2; i++) {
      assertThat(client.post(call + "/signal", signal, "Idempotency-Key", "g").status())
          .isEqualTo(200);
    }
    problem(
        client.post(call + "/signal", "{\"signal\":\"TERM\"}", "Idempotency-Key", "g"),
        409,
        "idempotency-mismatch");
    for (int i = 0; i < 2; i++) {
      assertThat(client.post(call + "/cancel", "{}", "Idempotency-Key", "c").status())
          .isEqualTo(200);
    }
    problem(client.post(call + "/cancel", "", "Idempotency-Key", "c"), 409, "idempotency-mismatch");
    assertViolation(
        client.post("/v1/keys", "{\"name\":\"a\"}", "Idempotency-Key", "k"),
        "header:Idempotency-Key",
        "not-supported",
        "secret");
  }

  @Test
  void holdsStdinToItsOffset() {
    String sandbox = client.sandbox("{}");
    Answer started =
        client.post(
            SANDBOXES + "/" + sandbox + "/calls",
            "{\"tool\":\"process.start\",\"background\":true,\"stdin\":true,\"argv\":[\"cat\"]}");
    String call = started.json().path("call").path("id").asText();
    String stdin = "/v1/calls/" + call + "/stdin";
    awaitStatus(call, "running");
    problem(client.post(stdin, "{\"offset\":5,\"text\":\"late\"}"), 409, "wrong-offset");
    assertThat(
            client.post(stdin, "{\"offset\":0,\"text\":\"abc\"}").json().path("accepted").asLong())
        .isEqualTo(3);
    problem(client.post(stdin, "{\"offset\":9,\"text\":\"late\"}"), 409, "wrong-offset");
    assertViolation(
        client.post(stdin, "{\"offset\":-1,\"text\":\"x\"}"), "/offset", "bad-value", "");
    assertViolation(
        client.post(stdin, "{\"offset\":\"0\",\"text\":\"x\"}"), "/offset", "wrong-type", "");
    assertViolation(client.post(stdin, "{}"), "/text", "missing-field", "");
    assertViolation(
        client.post(stdin, "{\"text\":\"x\",\"base64\":\"eA==\"}"), "/base64", "bad-value", "");
    // Sent again, because the answer was lost: taken once.
    assertThat(
            client.post(stdin, "{\"offset\":0,\"text\":\"abc\"}").json().path("accepted").asLong())
        .isEqualTo(3);
    assertThat(client.post(stdin, "{\"offset\":3,\"text\":\"d\",\"end\":true}").status())
        .isEqualTo(200);
    assertThat(awaitStatus(call, "exited").path("stdout").asText()).isEqualTo("abcd");
    problem(client.post(stdin, "{\"text\":\"x\"}"), 409, "call-ended");
    problem(
        client.post("/v1/calls/" + call + "/signal", "{\"signal\":\"INT\"}"), 409, "call-ended");

    String without = start(sandbox, "spin");
    awaitStatus(without, "running");
    problem(
        client.post("/v1/calls/" + without + "/stdin", "{\"text\":\"x\"}"), 409, "stdin-closed");
  }

  @Test
  void answersOutputBeyondTheEndWithNothing() {
    String sandbox = client.sandbox("{}");
    JsonNode call = client.run(sandbox, "echo", "hello");
    String output = "/v1/calls/" + call.path("id").asText() + "/output";
    Answer beyond = client.get(output + "?offset=1000000");
    assertThat(beyond.status()).isEqualTo(200);
    assertThat(beyond.body()).isEmpty();
    assertThat(beyond.response().headers().firstValue("X-Foredeck-Recorded")).hasValue("6");
    assertThat(beyond.response().headers().firstValue("X-Foredeck-Ended")).hasValue("true");
    assertThat(client.get(output + "?offset=6").body()).isEmpty();
    assertThat(client.get(output + "?offset=5").body()).isEqualTo("\n");
    for (String offset : List.of("-1", "abc", "1e3", "99999999999999999999", "")) {
      assertViolation(
          client.get(output + "?offset=" + offset), "query:offset", "bad-value", "whole number");
    }
    assertViolation(client.get(output + "?offset=1&offset=2"), "query:offset", "bad-value", "once");
    String events = SANDBOXES + "/" + sandbox + "/events";
    assertThat(client.get(events + "?after=1000000").json().path("events")).isEmpty();
    assertViolation(client.get(events + "?after=-1"), "query:after", "bad-value", "");
    assertViolation(
        client.send(client.request(events).header("Last-Event-ID", "x").build()),
        "header:Last-Event-ID",
        "bad-value",
        "");
  }

  @Test
  void answersAFullQuotaWithRetryAfter() {
    String sandbox = client.sandbox("{}");
    for (int i = 0; i < 48; i++) {
      assertThat(client.start(sandbox, true, "spin").status()).isEqualTo(202);
    }
    assertRetryAfter(client.start(sandbox, true, "spin"), 429, "call-quota");
    for (int i = 1; i < 200; i++) {
      assertThat(create("{}").status()).as("sandbox " + i).isEqualTo(201);
    }
    assertRetryAfter(
        client.post(SANDBOXES, "{}", "Idempotency-Key", "later"), 429, "sandbox-quota");
    client.delete(SANDBOXES + "/" + sandbox);
    client.awaitPhase(sandbox, "gone"::equals);
    assertThat(client.post(SANDBOXES, "{}", "Idempotency-Key", "later").status()).isEqualTo(201);
  }

  // ---- the process

  @Test
  void servesItsHealthAndItsContractToEverybody() throws Exception {
    for (String path : List.of("/readyz", "/healthz", "/openapi.json")) {
      Raw answer = raw("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n", new byte[0]);
      assertThat(answer.status()).as(path).isEqualTo(200);
      assertThat(answer.head()).as(path).containsIgnoringCase("content-type: application/json");
    }
    JsonNode contract = client.get("/openapi.json").json();
    assertThat(contract.path("openapi").asText()).startsWith("3.");
    assertThat(contract.path("paths").has(SANDBOXES)).isTrue();
  }

  @Test
  void refusesPoliciesWithFaults() throws Exception {
    Path data = Files.createTempDirectory(Path.of("/var/tmp"), "foredeck-test-");
    Files.setPosixFilePermissions(
        data, java.nio.file.attribute.PosixFilePermissions.fromString("rwxr-xr-x"));
    try {
      Path policy = Files.createDirectories(data.resolve("policies")).resolve("mine.yaml");
      String good =
          """
          apiVersion: foredeck/v1
          kind: SandboxPolicy
          metadata: {name: mine}
          egress:
            - {id: web, hosts: [example.com]}
          rules:
            - {id: work, effect: allow, action: process.start, when: "process.cwd == '/workspace'"}
          """;
      assertFault(data, policy, good.replace("effect:", "efect:"), "mine.yaml:7:", "'effect'");
      assertFault(
          data,
          policy,
          good.replace("process.cwd", "process.cwdd"),
          "mine.yaml:7:",
          "'process.cwd'");
      assertFault(data, policy, good.replace("allow,", "ask,"), "mine.yaml:7:", "not-supported");
      assertFault(data, policy, good.replace("example.com", "'*.*'"), "mine.yaml:5:", "bad-value");
      assertFault(data, policy, good.replace("rules:", "rules: ["), "mine.yaml:", "yaml");
      assertFault(data, policy, good.replace("mine}", "other}"), "mine.yaml:", "'mine'");
      Files.write(policy, new byte[] {'a', ':', ' ', (byte) 0xff, '\n'});
      assertRefused(Plane.refused(data, Map.of()), "mine.yaml", "UTF-8");
    } finally {
      Plane.removeTree(data);
    }
  }

  private static void assertFault(Path data, Path file, String policy, String... says)
      throws IOException {
    Files.writeString(file, policy);
    assertRefused(Plane.refused(data, Map.of()), says);
  }

  @Test
  void refusesConfigurationThatCannotBe() throws Exception {
    Path data = Files.createTempDirectory(Path.of("/var/tmp"), "foredeck-test-");
    try {
      assertRefused(
          Plane.refused(data, Map.of("FOREDECK_LISTN", "127.0.0.1:1")),
          "FOREDECK_LISTN",
          "FOREDECK_LISTEN");
      assertRefused(Plane.refused(data, Map.of("FOREDECK_LISTEN", "7070")), "HOST:PORT");
      assertRefused(
          Plane.refused(data, Map.of("FOREDECK_DRIVER", "docker")), "FOREDECK_DOCKER_TEMPLATES");
      assertRefused(
          Plane.refused(data, Map.of("FOREDECK_DRIVER", "kubernetes")), "FOREDECK_GATEWAY");
      assertRefused(Plane.refused(data, Map.of("FOREDECK_DRIVER", "lokal")), "local");
      assertRefused(
          Plane.refused(data, Map.of("FOREDECK_DATABASE_URL", "mysql://x/y")), "database");
      // Neither the secret nor a stack trace.
      Plane.Refusal away =
          Plane.refused(
              data, Map.of("FOREDECK_DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:1/foredeck"));
      assertRefused(away, "database");
      assertThat(away.said()).doesNotContain("hunter2");
      // A database that could lose what it acknowledges.
      assertRefused(
          Plane.refused(
              data,
              Map.of(
                  "FOREDECK_DATABASE_URL",
                  "postgresql://foredeck:"
                      + databasePassword()
                      + "@127.0.0.1:"
                      + databasePort()
                      + "/foredeck?options=-csynchronous_commit=off")),
          "synchronous_commit");
      Path file = Files.createFile(data.resolve("file"));
      assertRefused(Plane.refused(file, Map.of()), file.toString());
    } finally {
      Plane.removeTree(data);
    }
  }

  @Test
  void refusesWhatAnotherControlPlaneHolds() throws Exception {
    assertRefused(
        Plane.refused(plane.data(), Map.of()), "another control plane", plane.data().toString());
    Path data = Files.createTempDirectory(Path.of("/var/tmp"), "foredeck-test-");
    Files.setPosixFilePermissions(
        data, java.nio.file.attribute.PosixFilePermissions.fromString("rwxr-xr-x"));
    try {
      String taken = "127.0.0.1:" + plane.port();
      assertRefused(Plane.refused(data, Map.of("FOREDECK_LISTEN", taken)), taken);
    } finally {
      Plane.removeTree(data);
    }
    assertThat(client.get("/readyz").status()).isEqualTo(200);
  }

  /// At moments all over its start: it ends with 0, and so does its database.
  @Test
  void leavesNothingBehindWhenItIsStoppedWhileItStarts() throws Exception {
    for (long afterMillis : new long[] {0, 300, 1_000, 2_000, 3_500}) {
      Path data = Files.createTempDirectory(Path.of("/var/tmp"), "foredeck-test-");
      Files.setPosixFilePermissions(
          data, java.nio.file.attribute.PosixFilePermissions.fromString("rwxr-xr-x"));
      try {
        Plane.Refusal ended = Plane.terminated(data, afterMillis);
        assertThat(ended.exitCode()).as(afterMillis + " ms\n" + ended.said()).isZero();
        assertThat(ended.said()).doesNotContain("Exception");
        assertThat(data.resolve("postgres/cluster/postmaster.pid"))
            .as(afterMillis + " ms\n" + ended.said())
            .doesNotExist();
      } finally {
        Plane.removeTree(data);
      }
    }
  }

  /// As many as would not fit into its memory together.
  @Test
  void manyLargeBodiesAtOnceDoNotExhaustIt() throws Exception {
    int clients = 48;
    // A string that the template's own limit refuses, after all of it was read and parsed.
    String body = "{\"template\":\"" + "x".repeat(15 << 20) + "\"}";
    Set<Integer> statuses = new HashSet<>();
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<Future<Answer>> answers = new ArrayList<>();
      for (int i = 0; i < clients; i++) {
        answers.add(threads.submit(() -> client.post(SANDBOXES, body)));
      }
      for (Future<Answer> answer : answers) {
        Answer got = answer.get(120, TimeUnit.SECONDS);
        assertThat(got.status()).as(got.body()).isIn(400, 429);
        statuses.add(got.status());
      }
    }
    assertThat(statuses).contains(400);
    assertThat(Files.readString(plane.log())).doesNotContain("OutOfMemoryError");
    assertThat(client.get("/readyz").status()).isEqualTo(200);
  }

  @Test
  void drainsOnSigterm() throws Exception {
    try (Plane own = Plane.start("simulated", Map.of())) {
      Client theirs = new Client(own);
      String sandbox = theirs.sandbox("{}");
      HttpRequest events =
          theirs
              .request(SANDBOXES + "/" + sandbox + "/events")
              .header("Accept", "text/event-stream")
              .build();
      Future<List<Event>> feed = async(() -> theirs.stream(events));
      Future<Answer> waiting = async(() -> theirs.start(sandbox, false, "spin"));
      Client.sleep(1000);
      assertThat(own.stop()).isZero();
      // Both are told in order, not cut.
      assertThat(feed.get(10, TimeUnit.SECONDS)).isNotEmpty();
      assertRetryAfter(waiting.get(10, TimeUnit.SECONDS), 503, "shutting-down");
      assertThat(Files.readString(own.log())).doesNotContain("ERROR").doesNotContain("\tat ");
      own.start();
      assertThat(theirs.get(SANDBOXES + "/" + sandbox).status()).isEqualTo(200);
    }
  }

  // ---- what all of it shares

  private static Answer create(String body) {
    return client.post(SANDBOXES, body);
  }

  private static Answer create(byte[] body) {
    return client.send(
        client
            .request(SANDBOXES)
            .header("Content-Type", "application/json")
            .POST(BodyPublishers.ofByteArray(body))
            .build());
  }

  private static String start(String sandbox, String... argv) {
    Answer started = client.start(sandbox, true, argv);
    assertThat(started.status()).as(started.body()).isEqualTo(202);
    return started.json().path("call").path("id").asText();
  }

  private static JsonNode awaitStatus(String call, String status) {
    for (int i = 0; i < 600; i++) {
      JsonNode json = client.get("/v1/calls/" + call).json();
      if (json.path("status").asText().equals(status)) {
        return json;
      }
      Client.sleep(20);
    }
    throw new IllegalStateException("the call does not become " + status);
  }

  /// Live sandboxes.
  private static int count() {
    return client
        .get(SANDBOXES + "?phase=requested,starting,ready")
        .json()
        .path("sandboxes")
        .size();
  }

  private static JsonNode key(String role) {
    Answer made = client.post("/v1/keys", "{\"name\":\"test\",\"role\":\"" + role + "\"}");
    assertThat(made.status()).as(made.body()).isEqualTo(201);
    return made.json();
  }

  private static Answer as(String key, String method, String path, String body) {
    return client.send(
        client
            .request(path)
            .setHeader("Authorization", "Bearer " + key)
            .header("Content-Type", "application/json")
            .method(
                method, body.isEmpty() ? BodyPublishers.noBody() : BodyPublishers.ofString(body))
            .build());
  }

  /// No door makes a tenant yet: written into the database, which has a port and a password.
  ///
  /// @return a key of its operator
  private static String otherTenant() throws Exception {
    String url = "jdbc:postgresql://127.0.0.1:" + databasePort() + "/foredeck";
    byte[] random = new byte[16];
    new SecureRandom().nextBytes(random);
    String secret = "fdk_" + HexFormat.of().formatHex(random);
    String hash =
        HexFormat.of()
            .formatHex(
                MessageDigest.getInstance("SHA-256")
                    .digest(secret.getBytes(StandardCharsets.UTF_8)));
    try (Connection connection = DriverManager.getConnection(url, "foredeck", databasePassword())) {
      try (PreparedStatement tenant =
          connection.prepareStatement(
              "insert into tenant (id, name) values ('tenother000000000000', 'other')")) {
        tenant.executeUpdate();
      }
      try (PreparedStatement key =
          connection.prepareStatement(
              "insert into api_key (id, tenant, name, role, sha256, created_at)"
                  + " values ('keyother000000000000', 'tenother000000000000', 'other', 'operator',"
                  + " ?, now())")) {
        key.setString(1, hash);
        key.executeUpdate();
      }
    }
    return secret;
  }

  private static String databasePort() throws IOException {
    return Files.readString(plane.data().resolve("postgres/port")).strip();
  }

  private static String databasePassword() throws IOException {
    return Files.readString(plane.data().resolve("postgres/password")).strip();
  }

  private static <T> Future<T> async(Callable<T> callable) {
    FutureTask<T> task = new FutureTask<>(callable);
    Thread.ofVirtual().start(task);
    return task;
  }

  private static void assertRefused(Plane.Refusal refusal, String... says) {
    assertThat(refusal.said())
        .contains(says)
        .doesNotContain("\tat ")
        .doesNotContain("Exception")
        .doesNotContain("foredeck ready");
    assertThat(refusal.exitCode()).as(refusal.said()).isEqualTo(2);
  }

  private static void assertRetryAfter(Answer answer, int status, String code) {
    problem(answer, status, code);
    assertThat(answer.response().headers().firstValueAsLong("Retry-After").orElse(0))
        .isBetween(1L, 60L);
  }

  private static void assertViolation(Answer answer, String pointer, String code, String... says) {
    JsonNode violations = problem(answer, 400, "").json().path("violations");
    for (JsonNode violation : violations) {
      if (violation.path("pointer").asText().equals(pointer)
          && violation.path("code").asText().equals(code)) {
        assertThat(violation.path("message").asText()).contains(says);
        return;
      }
    }
    throw new AssertionError("no " + code + " at '" + pointer + "': " + answer.body());
  }

  /// @param code empty where the caller looks itself
  private static Answer problem(Answer answer, int status, String code) {
    assertThat(answer.status()).as(answer.body()).isEqualTo(status);
    assertThat(answer.response().headers().firstValue("Content-Type")).hasValue(PROBLEM);
    assertProblem(answer.json(), status, code);
    return answer;
  }

  private static void problem(Raw answer, int status, String code) {
    assertThat(answer.status()).as(answer.head() + answer.text()).isEqualTo(status);
    assertThat(answer.head()).containsIgnoringCase("content-type: " + PROBLEM);
    assertProblem(Client.parse(answer.text()), status, code);
  }

  private static void assertProblem(JsonNode problem, int status, String code) {
    String context = problem.toString();
    assertThat(problem.path("status").asInt()).as(context).isEqualTo(status);
    assertThat(problem.path("code").asText()).as(context).isNotEmpty();
    if (!code.isEmpty()) {
      assertThat(problem.path("code").asText()).as(context).isEqualTo(code);
    }
    assertThat(problem.path("type").asText())
        .as(context)
        .isEqualTo("https://foredeck.dev/problems/" + problem.path("code").asText());
    assertThat(problem.path("title").asText()).as(context).isNotEmpty();
    assertThat(problem.path("detail").asText()).as(context).isNotEmpty();
    assertThat(context)
        .doesNotContain("Exception")
        .doesNotContain("dev.foredeck.")
        .doesNotContain(plane.key());
  }

  // ---- what HttpClient is too polite to send

  /// @param closed whether the server closed the connection after it
  private record Raw(int status, String head, String text, boolean closed) {}

  private static String head(String method, String target, String headers) {
    return method
        + " "
        + target
        + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
        + plane.key()
        + "\r\nContent-Type: application/json\r\n"
        + headers
        + "\r\n\r\n";
  }

  private static Raw raw(String head, byte[] body) throws IOException {
    try (Socket socket = new Socket(InetAddress.getLoopbackAddress(), plane.port())) {
      socket.setSoTimeout(10_000);
      OutputStream out = socket.getOutputStream();
      out.write(head.getBytes(StandardCharsets.US_ASCII));
      out.flush();
      try {
        out.write(body);
        out.flush();
      } catch (IOException _) {
        // It has answered already, and reads no more.
      }
      InputStream in = socket.getInputStream();
      ByteArrayOutputStream bytes = new ByteArrayOutputStream();
      int end = -1;
      int length = 0;
      int read = 0;
      while ((end < 0 || bytes.size() < end + length) && (read = in.read()) >= 0) {
        bytes.write(read);
        if (end < 0 && bytes.toString(StandardCharsets.UTF_8).endsWith("\r\n\r\n")) {
          end = bytes.size();
          length = contentLength(bytes.toString(StandardCharsets.UTF_8));
        }
      }
      String answered = bytes.toString(StandardCharsets.UTF_8);
      assertThat(answered).as("for " + head).startsWith("HTTP/1.");
      int split = answered.indexOf("\r\n\r\n") + 4;
      socket.setSoTimeout(500);
      return new Raw(
          Integer.parseInt(answered.substring(9, 12)),
          answered.substring(0, split),
          answered.substring(split),
          read < 0 || closes(in));
    }
  }

  private static boolean closes(InputStream in) {
    try {
      return in.read() < 0;
    } catch (java.net.SocketTimeoutException _) {
      return false;
    } catch (IOException _) {
      return true;
    }
  }

  private static int contentLength(String head) {
    return head.lines()
        .filter(line -> line.toLowerCase(java.util.Locale.ROOT).startsWith("content-length:"))
        .findFirst()
        .map(line -> Integer.parseInt(line.substring(15).strip()))
        .orElse(0);
  }
}
