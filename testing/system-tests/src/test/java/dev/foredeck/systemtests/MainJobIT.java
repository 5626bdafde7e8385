package dev.foredeck.systemtests;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.sun.net.httpserver.HttpServer;
import dev.foredeck.systemtests.Client.Answer;
import dev.foredeck.systemtests.Client.Event;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.http.HttpRequest;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.time.Duration;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import java.util.concurrent.FutureTask;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// The main job and its faults, through the front door, on every driver.
@Tag("driver")
class MainJobIT {
  private static HttpServer site;
  private static Plane plane;
  private static Client client;

  @BeforeAll
  static void start() throws IOException {
    site = HttpServer.create(new InetSocketAddress(Plane.hostSeenByTheGateway(), 0), 0);
    site.createContext(
        "/",
        exchange -> {
          byte[] page = "hello from the site".getBytes(StandardCharsets.UTF_8);
          exchange.sendResponseHeaders(200, page.length);
          exchange.getResponseBody().write(page);
          exchange.close();
        });
    site.start();
    plane =
        Plane.real(
            Map.of(
                "FOREDECK_EGRESS_PINS",
                "demo.foredeck.internal="
                    + site.getAddress().getAddress().getHostAddress()
                    + ":"
                    + site.getAddress().getPort()));
    client = new Client(plane);
  }

  @AfterAll
  static void stop() {
    plane.close();
    site.stop(0);
    assertThat(new Leftovers(plane).findAfterSettling()).isEmpty();
  }

  /// A cluster's node of two cores has room for one of them.
  @AfterEach
  void destroyWhatIsLeft() {
    client.destroyAll();
  }

  private static ObjectNode small() {
    ObjectNode body = Client.MAPPER.createObjectNode();
    body.putObject("resources").put("memory", "256Mi").put("disk", "64Mi");
    return body;
  }

  private static ObjectNode python(String code) {
    ObjectNode body = small();
    body.putObject("run").put("language", "python").put("code", code);
    return body;
  }

  @Test
  void doesTheWholeJobInOneRequest() {
    ObjectNode body =
        python(
            """
            import csv, urllib.request, urllib.error
            rows = list(csv.DictReader(open('data.csv')))
            print('sum', sum(int(row['n']) for row in rows), flush=True)
            open('chart.png', 'wb').write(b'\\x89PNG' + bytes(100))
            print(urllib.request.urlopen('http://demo.foredeck.internal/').read().decode(), flush=True)
            try:
                urllib.request.urlopen('http://denied.example.org/')
            except urllib.error.HTTPError as e:
                print(e.code, e.read().decode(), flush=True)
            """);
    body.putArray("files").addObject().put("path", "data.csv").put("content", "n\n1\n2\n39\n");
    body.putArray("outputs").add("chart.png").add("missing.txt");
    HttpRequest request =
        client
            .request("/v1/sandboxes")
            .header("Accept", "text/event-stream")
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body.toString()))
            .build();
    List<Event> events = client.stream(request);
    for (int i = 0; i < events.size(); i++) {
      assertThat(events.get(i).seq()).isEqualTo(i + 1);
    }
    assertThat(events.stream().map(Event::type).toList())
        .startsWith(
            "sandbox.phase",
            "call.requested",
            "call.decided",
            "sandbox.phase",
            "sandbox.phase",
            "call.started")
        .contains("output", "egress.flow", "call.output", "call.ended");
    assertThat(phases(events))
        .containsExactly("requested", "starting", "ready", "stopping", "gone");
    assertThat(output(events, "stdout"))
        .contains("sum 42")
        .contains("hello from the site")
        .contains("403");
    Event decided = only(events, "call.decided");
    assertThat(decided.data().path("effect").asText()).isEqualTo("allow");
    assertThat(decided.data().path("policy").asText()).matches("default@[0-9a-f]{12}");
    assertThat(decided.data().path("rules")).isNotEmpty();
    Event ended = only(events, "call.ended");
    assertThat(ended.data().path("exitCode").asInt(-1)).as(ended.toString()).isEqualTo(0);
    assertThat(ended.data().path("usage").path("cpuSeconds").asDouble()).isPositive();
    List<JsonNode> outputs =
        events.stream().filter(e -> e.type().equals("call.output")).map(Event::data).toList();
    assertThat(Base64.getDecoder().decode(outputs.get(0).path("base64").asText())).hasSize(104);
    assertThat(outputs.get(1).path("missing").asText()).isNotEmpty();
    List<JsonNode> flows =
        events.stream().filter(e -> e.type().equals("egress.flow")).map(Event::data).toList();
    assertThat(flows)
        .anyMatch(f ->
            f.path("host").asText().equals("demo.foredeck.internal")
                && f.path("effect").asText().equals("allow"));
    assertThat(flows)
        .anyMatch(f ->
            f.path("host").asText().equals("denied.example.org")
                && f.path("effect").asText().equals("deny"));
    String call = ended.envelope().path("call").asText();
    assertThat(
            events.stream()
                .filter(e -> e.type().equals("egress.flow"))
                .map(e -> e.envelope().path("call").asText()))
        .containsOnly(call);
    assertThat(client.bytes("/v1/calls/" + call + "/outputs/chart.png")).hasSize(104);
  }

  @Test
  void answersInJsonWithoutAStream() {
    ObjectNode body = small();
    body.putObject("run")
        .putArray("argv")
        .add("bash")
        .add("-lc")
        .add("echo out; echo err >&2; exit 3");
    Answer answer = client.post("/v1/sandboxes", body.toString());
    assertThat(answer.status()).as(answer.body()).isEqualTo(200);
    JsonNode call = answer.json().path("call");
    assertThat(call.path("status").asText()).isEqualTo("exited");
    assertThat(call.path("exitCode").asInt()).isEqualTo(3);
    assertThat(call.path("stdout").asText()).isEqualTo("out\n");
    assertThat(call.path("stderr").asText()).isEqualTo("err\n");
  }

  @Test
  void recordsARefusedRun() {
    ObjectNode body = python("print(1)");
    body.put("policy", "offline");
    body.putObject("network").putArray("allow").add("pypi.org");
    Answer answer = client.post("/v1/sandboxes", body.toString());
    assertThat(answer.status()).as(answer.body()).isEqualTo(400);
    assertThat(answer.json().path("violations").get(0).path("pointer").asText())
        .isEqualTo("/network/allow/0");
  }

  @Test
  void keepsASandboxAndItsFilesBetweenCalls() throws Exception {
    String sandbox = client.sandbox(small().toString());
    byte[] bytes = new byte[3_000_000];
    new java.util.Random(1).nextBytes(bytes);
    String file = "/v1/sandboxes/" + sandbox + "/files/a/b/c.bin";
    assertThat(client.put(file, bytes).status()).isBetween(200, 204);
    assertThat(client.bytes(file)).isEqualTo(bytes);
    JsonNode call = client.run(sandbox, "bash", "-c", "sha256sum a/b/c.bin | cut -d' ' -f1");
    assertThat(call.path("stdout").asText().strip())
        .isEqualTo(
            java.util.HexFormat.of()
                .formatHex(java.security.MessageDigest.getInstance("SHA-256").digest(bytes)));
    assertThat(client.delete(file).status()).isBetween(200, 204);
    assertThat(client.get(file).status()).isEqualTo(404);
    client.delete("/v1/sandboxes/" + sandbox);
    client.awaitPhase(sandbox, "gone"::equals);
  }

  @Test
  void feedsStdinToABackgroundProcess() {
    String sandbox = client.sandbox(small().toString());
    ObjectNode body =
        Client.MAPPER
            .createObjectNode()
            .put("tool", "process.start")
            .put("background", true)
            .put("stdin", true);
    body.putArray("argv").add("cat");
    Answer started = client.post("/v1/sandboxes/" + sandbox + "/calls", body.toString());
    assertThat(started.status()).as(started.body()).isBetween(200, 202);
    JsonNode json = started.json();
    String call = (json.has("call") ? json.path("call") : json).path("id").asText();
    ObjectNode stdin =
        Client.MAPPER.createObjectNode().put("text", "to be echoed\n").put("end", true);
    Answer sent = client.post("/v1/calls/" + call + "/stdin", stdin.toString());
    assertThat(sent.status()).as(sent.body()).isEqualTo(200);
    JsonNode ended = awaitCall(call);
    assertThat(ended.path("stdout").asText()).isEqualTo("to be echoed\n");
    assertThat(ended.path("status").asText()).isEqualTo("exited");
  }

  @Test
  void endsAProcessThatIgnoresTerm() {
    String sandbox = client.sandbox(small().toString());
    ObjectNode body =
        Client.MAPPER.createObjectNode().put("tool", "process.start").put("timeout", "1s");
    body.putArray("argv")
        .add("bash")
        .add("-c")
        .add("trap '' TERM; (trap '' TERM; sleep 1000) & while :; do sleep 1; done");
    Answer answer = client.post("/v1/sandboxes/" + sandbox + "/calls", body.toString());
    JsonNode call = answer.json().has("call") ? answer.json().path("call") : answer.json();
    assertThat(call.path("status").asText()).as(answer.body()).isEqualTo("timeout");
    assertThat(
            client
                .run(sandbox, "bash", "-c", "ps -e -o args= | grep -c '[s]leep 1000'")
                .path("stdout")
                .asText()
                .strip())
        .isEqualTo("0");
  }

  @Test
  void survivesAForkBomb() {
    // 240 copies of Python take 0.84 MB each; beside the agent that is just what `small` has, and
    // the kernel may then end the first of them for memory. This test is about processes.
    ObjectNode roomy = small();
    roomy.withObject("resources").put("memory", "512Mi");
    String sandbox = client.sandbox(roomy.toString());
    ObjectNode body =
        Client.MAPPER
            .createObjectNode()
            .put("tool", "process.start")
            .put("timeout", "3s")
            .put("background", true);
    body.putArray("argv")
        .add("python3")
        .add("-c")
        .add("import os\nwhile True:\n  try: os.fork()\n  except OSError: pass");
    Answer started = client.post("/v1/sandboxes/" + sandbox + "/calls", body.toString());
    Client.sleep(1000);
    // The flood has every process it can get; the agent serves all the same.
    assertThat(client.put("/v1/sandboxes/" + sandbox + "/files/x", new byte[1]).status())
        .isBetween(200, 204);
    JsonNode json = started.json();
    String call = (json.has("call") ? json.path("call") : json).path("id").asText();
    assertThat(awaitCall(call).path("status").asText()).isEqualTo("timeout");
    // The first process is gone; what it left behind gets KILL when the grace is over.
    JsonNode after = client.run(sandbox, "echo", "still here");
    for (int i = 0; i < 40 && !after.path("status").asText().equals("exited"); i++) {
      assertThat(after.path("reason").asText()).contains("no room for another process");
      Client.sleep(500);
      after = client.run(sandbox, "echo", "still here");
    }
    assertThat(after.path("stdout").asText()).as(after.toString()).isEqualTo("still here\n");
  }

  @Test
  void killsWhatFillsTheMemoryAndNotTheAgent() {
    String sandbox = client.sandbox(small().toString());
    JsonNode call = client.run(sandbox, "python3", "-c", "x = bytearray(1 << 30); print(len(x))");
    assertThat(call.path("status").asText()).as(call.toString()).isIn("signaled", "exited");
    assertThat(call.path("exitCode").asInt(-1)).isNotZero();
    assertThat(client.run(sandbox, "echo", "alive").path("stdout").asText()).isEqualTo("alive\n");
  }

  @Test
  void givesADiskThatFillsUp() {
    String sandbox = client.sandbox(small().toString());
    JsonNode call =
        client.run(
            sandbox,
            "bash",
            "-c",
            "dd if=/dev/zero of=big bs=1M count=500 2>&1; df --output=pcent /workspace | tail -1");
    assertThat(call.path("stdout").asText()).as(call.toString()).contains("No space left");
    assertThat(client.put("/v1/sandboxes/" + sandbox + "/files/more", new byte[2_000_000]).status())
        .isEqualTo(413);
    client.run(sandbox, "rm", "big");
    assertThat(client.put("/v1/sandboxes/" + sandbox + "/files/more", new byte[2_000_000]).status())
        .isBetween(200, 204);
  }

  @Test
  void recordsEndlessOutputUpToItsLimit() {
    String sandbox = client.sandbox(small().toString());
    ObjectNode body =
        Client.MAPPER.createObjectNode().put("tool", "process.start").put("timeout", "60s");
    body.putArray("argv").add("bash").add("-c").add("head -c 90000000 /dev/zero; echo done >&2");
    Answer answer = client.post("/v1/sandboxes/" + sandbox + "/calls", body.toString());
    JsonNode call = answer.json().has("call") ? answer.json().path("call") : answer.json();
    assertThat(call.path("status").asText()).as(call.path("reason").asText()).isEqualTo("exited");
    assertThat(call.path("truncated").asBoolean()).isTrue();
    assertThat(call.path("stderr").asText()).isEqualTo("done\n");
    assertThat(call.path("usage").path("outputBytes").asLong()).isEqualTo(90_000_005);
  }

  @Test
  void reapsOrphansAndLeavesBackgroundServersAlone() {
    String sandbox = client.sandbox(small().toString());
    JsonNode call =
        client.run(
            sandbox,
            "bash",
            "-c",
            "for i in 1 2 3; do (setsid sleep 0.2 &) ; done; (setsid python3 -m http.server 8000"
                + " --bind 127.0.0.1 >/dev/null 2>&1 &); sleep 1; echo ok");
    assertThat(call.path("stdout").asText()).isEqualTo("ok\n");
    JsonNode after =
        client.run(
            sandbox,
            "bash",
            "-c",
            "ps -e -o stat= | grep -c Z; python3 -c \"import urllib.request as u;"
                + " print(u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:8000/').status)\"");
    assertThat(after.path("stdout").asText()).as(after.toString()).isEqualTo("0\n200\n");
  }

  @Test
  void refusesPathsThatLeaveTheWorkspace() {
    String sandbox = client.sandbox(small().toString());
    client.run(
        sandbox, "bash", "-c", "ln -s /etc etc; ln -s / root; mkdir d; ln -s ../../etc/passwd d/p");
    String files = "/v1/sandboxes/" + sandbox + "/files/";
    for (String path :
        List.of(
            "etc/passwd",
            "root/etc/passwd",
            "d/p",
            "%2e%2e/etc/passwd",
            "a/%2e%2e/%2e%2e/etc",
            "a%00b")) {
      assertThat(client.get(files + path).status()).as(path).isIn(400, 404);
      assertThat(client.get(files + path + "?list=1").status()).as(path).isIn(400, 404, 409);
      if (!path.equals("d/p")) {
        assertThat(client.put(files + path, new byte[1]).status()).as(path).isIn(400, 404, 409);
      }
    }
    // A write replaces a link in its last place; it does not follow it.
    assertThat(client.put(files + "d/p", "mine".getBytes(StandardCharsets.UTF_8)).status())
        .isBetween(200, 204);
    assertThat(
            client
                .run(sandbox, "bash", "-c", "test ! -L d/p && cat d/p; grep -c mine /etc/passwd")
                .path("stdout")
                .asText())
        .isEqualTo("mine0\n");
  }

  @Test
  void leavesNothingOfAnUploadThatBreaksOff() throws Exception {
    String sandbox = client.sandbox(small().toString());
    try (Socket socket = new Socket(InetAddress.getLoopbackAddress(), plane.port())) {
      OutputStream out = socket.getOutputStream();
      out.write(
          ("PUT /v1/sandboxes/"
                  + sandbox
                  + "/files/half HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                  + plane.key()
                  + "\r\nContent-Length: 1000000\r\n\r\n")
              .getBytes(StandardCharsets.US_ASCII));
      out.write(new byte[100_000]);
      out.flush();
      Client.sleep(300);
    }
    Client.sleep(500);
    assertThat(client.get("/v1/sandboxes/" + sandbox + "/files/half").status()).isEqualTo(404);
    assertThat(
            client
                .run(sandbox, "bash", "-c", "ls -A | grep -v lost+found | wc -l")
                .path("stdout")
                .asText()
                .strip())
        .isEqualTo("0");
  }

  @Test
  void attachesADuplicateToTheFirstWhileItIsInFlight() throws Exception {
    ObjectNode body = small();
    body.put("destroy", "on-ttl");
    body.putObject("run")
        .putArray("argv")
        .add("bash")
        .add("-c")
        .add("echo x >> /workspace/ran; sleep 1; cat /workspace/ran");
    Future<Answer> first =
        async(() -> client.post("/v1/sandboxes", body.toString(), "Idempotency-Key", "dup-1"));
    Client.sleep(200);
    Future<Answer> second =
        async(() -> client.post("/v1/sandboxes", body.toString(), "Idempotency-Key", "dup-1"));
    assertThat(second.get().json().path("sandbox").path("id"))
        .isEqualTo(first.get().json().path("sandbox").path("id"));
    assertThat(second.get().json().path("call").path("stdout").asText()).isEqualTo("x\n");
    body.put("ttl", "5m");
    assertThat(client.post("/v1/sandboxes", body.toString(), "Idempotency-Key", "dup-1").status())
        .isEqualTo(409);
  }

  private static Future<Answer> async(java.util.concurrent.Callable<Answer> callable) {
    FutureTask<Answer> task = new FutureTask<>(callable);
    Thread.ofVirtual().start(task);
    return task;
  }

  @Test
  void letsAReaderStallWithoutHoldingUpTheCall() throws Exception {
    ObjectNode body = small();
    body.put("destroy", "on-ttl");
    body.putObject("run")
        .putArray("argv")
        .add("bash")
        .add("-c")
        .add("head -c 30000000 /dev/urandom | base64");
    byte[] bytes = body.toString().getBytes(StandardCharsets.UTF_8);
    try (Socket socket = new Socket(InetAddress.getLoopbackAddress(), plane.port())) {
      socket
          .getOutputStream()
          .write(
              ("POST /v1/sandboxes HTTP/1.1\r\n"
                      + "Host: x\r\n"
                      + "Accept: text/event-stream\r\n"
                      + "Idempotency-Key: stall\r\n"
                      + "Content-Type: application/json\r\n"
                      + "Authorization: Bearer "
                      + plane.key()
                      + "\r\nContent-Length: "
                      + bytes.length
                      + "\r\n\r\n")
                  .getBytes(StandardCharsets.US_ASCII));
      socket.getOutputStream().write(bytes);
      socket.getOutputStream().flush();
      InputStream in = socket.getInputStream();
      assertThat(in.read()).isPositive();
      // The reader reads no more; the call ends all the same.
      Answer answer = client.post("/v1/sandboxes", body.toString(), "Idempotency-Key", "stall");
      assertThat(answer.json().path("call").path("status").asText()).isEqualTo("exited");
    }
  }

  @Test
  void cancelsACall() {
    String sandbox = client.sandbox(small().toString());
    Answer started = client.start(sandbox, true, "sleep", "1000");
    JsonNode json = started.json();
    String call = (json.has("call") ? json.path("call") : json).path("id").asText();
    Answer cancelled = client.post("/v1/calls/" + call + "/cancel", "{}");
    assertThat(cancelled.status()).as(cancelled.body()).isBetween(200, 202);
    assertThat(awaitCall(call).path("status").asText()).isEqualTo("cancelled");
  }

  @Test
  void expiresASandboxAlsoWhenTheControlPlaneWasDown() throws Exception {
    try (Plane own = Plane.real()) {
      Client theirs = new Client(own);
      ObjectNode body = small();
      body.put("ttl", "4s");
      String sandbox = theirs.sandbox(body.toString());
      own.kill();
      Thread.sleep(Duration.ofSeconds(4));
      own.start();
      JsonNode gone = theirs.awaitPhase(sandbox, "gone"::equals);
      assertThat(gone.path("reason").asText()).contains("time to live");
    }
  }

  @Test
  void showsNoSecretInItsLog() throws Exception {
    ObjectNode body = small();
    body.putObject("env").put("API_TOKEN", "hunter2-very-secret");
    body.putObject("run").putArray("argv").add("bash").add("-c").add("test -n \"$API_TOKEN\"");
    Answer answer = client.post("/v1/sandboxes", body.toString());
    assertThat(answer.json().path("call").path("exitCode").asInt(-1)).isZero();
    String sandbox = answer.json().path("sandbox").path("id").asText();
    String events = client.get("/v1/sandboxes/" + sandbox + "/events").body();
    String log = Files.readString(plane.log());
    for (String text : List.of(answer.body(), events, log)) {
      assertThat(text).doesNotContain("hunter2-very-secret").doesNotContain(plane.key());
    }
  }

  private static JsonNode awaitCall(String call) {
    for (int i = 0; i < 600; i++) {
      JsonNode json = client.get("/v1/calls/" + call).json();
      JsonNode found = json.has("call") ? json.path("call") : json;
      if (!List.of("pending", "running").contains(found.path("status").asText())) {
        return found;
      }
      Client.sleep(50);
    }
    throw new IllegalStateException("the call does not end");
  }

  private static List<String> phases(List<Event> events) {
    return events.stream()
        .filter(e -> e.type().equals("sandbox.phase"))
        .map(e -> e.data().path("phase").asText())
        .toList();
  }

  private static String output(List<Event> events, String channel) {
    StringBuilder text = new StringBuilder();
    events.stream()
        .filter(e -> e.type().equals("output") && e.data().path("channel").asText().equals(channel))
        .forEach(e -> text.append(e.data().path("text").asText()));
    return text.toString();
  }

  private static Event only(List<Event> events, String type) {
    List<Event> found = events.stream().filter(e -> e.type().equals(type)).toList();
    assertThat(found).as(type).hasSize(1);
    return found.getFirst();
  }
}
