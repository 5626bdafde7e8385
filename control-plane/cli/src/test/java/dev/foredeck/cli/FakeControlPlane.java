package dev.foredeck.cli;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Proxy;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Executors;

/// What the demo starts in tests: a process that keeps the launcher's contract and answers the one
/// request by running its program on this host, behind a proxy that admits the pinned site alone.
/// Its first argument says what goes wrong.
final class FakeControlPlane {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final String SANDBOX = "sb0123456789abcdefgh";
  private static final String CALL = "ca0123456789abcdefgh";
  private static final String KEY = "a-key-of-the-test";

  /// A control plane refuses any other.
  private static final Set<String> KNOWN =
      Set.of(
          "FOREDECK_LISTEN",
          "FOREDECK_RUNSC",
          "FOREDECK_DOCKER_TEMPLATES",
          "FOREDECK_DATA",
          "FOREDECK_DRIVER",
          "FOREDECK_EGRESS_PINS",
          "FOREDECK_AGENT_BUNDLE",
          "FOREDECK_LOG");

  private final String fault;
  private final Path data;
  private final HttpServer server;
  private final HttpServer proxy;
  private final String pinnedHost;
  private final String pinnedAddress;
  private final List<ObjectNode> flows = new ArrayList<>();
  private volatile String phase = "requested";
  private int seq;

  private FakeControlPlane(String fault) throws IOException {
    this.fault = fault;
    this.data = Path.of(setting("FOREDECK_DATA"));
    String[] pin = setting("FOREDECK_EGRESS_PINS").split("=");
    this.pinnedHost = pin[0];
    this.pinnedAddress = pin[1];
    String[] listen = setting("FOREDECK_LISTEN").split(":");
    this.server =
        HttpServer.create(new InetSocketAddress(listen[0], Integer.parseInt(listen[1])), 16);
    this.proxy = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 16);
    server.setExecutor(Executors.newVirtualThreadPerTaskExecutor());
    proxy.setExecutor(Executors.newVirtualThreadPerTaskExecutor());
    server.createContext("/v1/sandboxes", this::serve);
    proxy.createContext("/", this::relay);
  }

  public static void main(String[] args) throws Exception {
    String fault = args.length > 1 ? args[0] : "";
    if (!args[args.length - 1].equals("up")) {
      throw new IllegalArgumentException("the verb is missing");
    }
    System.err.println("a line of the log");
    for (String name : System.getenv().keySet()) {
      // What tests of other modules run on comes from whoever runs all of them, not from the demo.
      boolean ofTheTests = name.startsWith("FOREDECK_TEST_");
      if (name.startsWith("FOREDECK_") && !ofTheTests && !KNOWN.contains(name)) {
        throw new IllegalArgumentException(name + " is not a key of Foredeck");
      }
    }
    if (fault.equals("dies")) {
      System.err.println("no runc here\u001b[2J");
      System.exit(7);
    }
    FakeControlPlane fake = new FakeControlPlane(fault);
    Files.writeString(fake.data.resolve("admin.key"), KEY + "\n");
    fake.server.start();
    fake.proxy.start();
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(() -> Runtime.getRuntime().halt(fault.equals("exits-badly") ? 5 : 0)));
    System.out.println("foredeck ready http://" + setting("FOREDECK_LISTEN"));
  }

  private static String setting(String name) {
    String value = System.getenv(name);
    if (value == null) {
      throw new IllegalStateException(name + " is not set");
    }
    return value;
  }

  private void serve(HttpExchange exchange) throws IOException {
    try (exchange) {
      if (!("Bearer " + KEY).equals(exchange.getRequestHeaders().getFirst("Authorization"))) {
        exchange.sendResponseHeaders(401, -1);
        return;
      }
      switch (exchange.getRequestMethod()) {
        case "POST" -> create(exchange);
        case "DELETE" -> {
          phase = "gone";
          answer(exchange, JSON.createObjectNode().put("id", SANDBOX).put("phase", phase));
        }
        case "GET" ->
            answer(exchange, JSON.createObjectNode().put("id", SANDBOX).put("phase", phase));
        default -> exchange.sendResponseHeaders(405, -1);
      }
    }
  }

  private static void answer(HttpExchange exchange, JsonNode json) throws IOException {
    byte[] bytes = JSON.writeValueAsBytes(json);
    exchange.sendResponseHeaders(200, bytes.length);
    try (OutputStream body = exchange.getResponseBody()) {
      body.write(bytes);
    }
  }

  private void create(HttpExchange exchange) throws IOException {
    JsonNode request = JSON.readTree(exchange.getRequestBody().readAllBytes());
    exchange.getResponseHeaders().set("Content-Type", "text/event-stream");
    exchange.sendResponseHeaders(200, 0);
    OutputStream out = exchange.getResponseBody();
    phase(out, "requested");
    phase(out, "ready");
    if (fault.equals("hangs")) {
      sleep();
    }
    Path workspace = Files.createDirectories(data.resolve("workspace"));
    for (JsonNode file : request.path("files")) {
      Files.writeString(
          workspace.resolve(file.path("path").asText()), file.path("content").asText());
    }
    int exit = run(request, workspace, out);
    for (ObjectNode flow : flows) {
      event(out, "egress.flow", flow);
    }
    for (JsonNode output : request.path("outputs")) {
      byte[] bytes = Files.readAllBytes(workspace.resolve(output.asText()));
      ObjectNode copied = JSON.createObjectNode().put("path", output.asText());
      if (fault.equals("loses-the-chart")) {
        copied.put("missing", "it is a folder");
      } else {
        copied.put("size", bytes.length).put("sha256", sha256(bytes));
        copied.put("base64", Base64.getEncoder().encodeToString(bytes));
      }
      event(out, "call.output", copied);
    }
    ObjectNode ended = JSON.createObjectNode().put("status", "exited").put("exitCode", exit);
    ended
        .putObject("usage")
        .put("cpuSeconds", 0.3)
        .put("peakMemoryBytes", 20_000_000)
        .put("wallMillis", 400)
        .put("outputBytes", 1000);
    event(out, "call.ended", ended);
    phase(out, "gone");
  }

  private int run(JsonNode request, Path workspace, OutputStream out) throws IOException {
    Path program = workspace.resolve("program.py");
    Files.writeString(program, request.path("run").path("code").asText());
    ProcessBuilder builder = new ProcessBuilder("python3", "-u", program.toString());
    builder.directory(workspace.toFile()).redirectErrorStream(true);
    Map<String, String> env = builder.environment();
    env.put("PYTHONIOENCODING", "utf-8");
    env.put("http_proxy", "http://127.0.0.1:" + proxy.getAddress().getPort());
    env.put("no_proxy", "");
    request.path("env").properties().forEach(e -> env.put(e.getKey(), e.getValue().asText()));
    Process process = builder.start();
    long offset = 0;
    try (BufferedReader lines =
        new BufferedReader(
            new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        event(
            out,
            "output",
            JSON.createObjectNode()
                .put("channel", "stdout")
                .put("offset", offset)
                .put("text", line + "\n"));
        offset += line.getBytes(StandardCharsets.UTF_8).length + 1;
      }
      return process.waitFor();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return -1;
    }
  }

  /// The gateway: the pinned host goes through, everything else is denied in its words.
  private void relay(HttpExchange exchange) throws IOException {
    try (exchange) {
      URI uri = exchange.getRequestURI();
      byte[] unused = exchange.getRequestBody().readAllBytes();
      boolean allowed = uri.getHost().equals(pinnedHost);
      ObjectNode flow =
          JSON.createObjectNode()
              .put("host", uri.getHost())
              .put("port", 80)
              .put("method", exchange.getRequestMethod())
              .put("path", uri.getPath())
              .put("effect", allowed ? "allow" : "deny")
              .put("rule", allowed ? "demo" : "default")
              .put("bytesOut", unused.length);
      if (!(fault.equals("records-no-refusal") && !allowed)) {
        flows.add(flow);
      }
      byte[] body;
      if (allowed) {
        URI site = URI.create("http://" + pinnedAddress + uri.getPath());
        HttpURLConnection connection =
            (HttpURLConnection) site.toURL().openConnection(Proxy.NO_PROXY);
        body = connection.getInputStream().readAllBytes();
      } else {
        body = "Foredeck denied this\nrule: default\nreason: no\n".getBytes(StandardCharsets.UTF_8);
      }
      exchange.sendResponseHeaders(allowed ? 200 : 403, body.length);
      try (OutputStream out = exchange.getResponseBody()) {
        out.write(body);
      }
    }
  }

  private void phase(OutputStream out, String next) throws IOException {
    phase = next;
    event(out, "sandbox.phase", JSON.createObjectNode().put("phase", next));
  }

  private void event(OutputStream out, String type, ObjectNode body) throws IOException {
    seq++;
    ObjectNode envelope =
        JSON.createObjectNode()
            .put("seq", seq)
            .put("time", Instant.now().toString())
            .put("type", type)
            .put("sandbox", SANDBOX);
    if (!type.equals("sandbox.phase")) {
      envelope.put("call", CALL);
    }
    envelope.set("data", body);
    String text = "id: " + seq + "\nevent: " + type + "\ndata: " + envelope + "\n\n";
    out.write(text.getBytes(StandardCharsets.UTF_8));
    out.flush();
  }

  private static void sleep() {
    try {
      Thread.sleep(600_000);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private static String sha256(byte[] bytes) {
    try {
      return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }
}
