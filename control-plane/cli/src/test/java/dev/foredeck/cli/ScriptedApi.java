package dev.foredeck.cli;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;

/// A server that answers requests with what a test has laid out, one after the other, and keeps
/// what it was asked.
final class ScriptedApi implements AutoCloseable {
  /// @param cut whether the connection breaks after the body, in the middle of it for the client
  /// @param hang whether it stays open and silent after the body until the server closes
  record Answer(int status, String contentType, String body, boolean cut, boolean hang) {
    static Answer stream(List<String> parts) {
      return new Answer(200, "text/event-stream", String.join("", parts), false, false);
    }

    static Answer brokenStream(String body) {
      return new Answer(200, "text/event-stream", body, true, false);
    }

    static Answer json(int status, String body) {
      return new Answer(status, "application/json", body, false, false);
    }
  }

  /// @param lastEventId empty without one
  record Asked(
      String line, String authorization, String lastEventId, String idempotencyKey, String body) {}

  private final HttpServer server;
  private final ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor();
  private final BlockingQueue<Answer> answers = new LinkedBlockingQueue<>();
  final List<Asked> asked = new CopyOnWriteArrayList<>();

  ScriptedApi(Answer... script) throws IOException {
    answers.addAll(List.of(script));
    server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 16);
    server.setExecutor(threads);
    server.createContext("/", this::answer);
    server.start();
  }

  URI url() {
    return URI.create("http://127.0.0.1:" + server.getAddress().getPort());
  }

  private void answer(HttpExchange exchange) throws IOException {
    String body = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
    asked.add(
        new Asked(
            exchange.getRequestMethod() + " " + exchange.getRequestURI(),
            header(exchange, "Authorization"),
            header(exchange, "Last-Event-ID"),
            header(exchange, "Idempotency-Key"),
            body));
    Answer answer = answers.poll();
    if (answer == null) {
      exchange.sendResponseHeaders(500, -1);
      exchange.close();
      return;
    }
    byte[] bytes = answer.body().getBytes(StandardCharsets.UTF_8);
    exchange.getResponseHeaders().set("Content-Type", answer.contentType());
    // A length that is not kept makes the client see a broken connection.
    exchange.sendResponseHeaders(answer.status(), answer.cut() ? bytes.length + 1000 : 0);
    OutputStream out = exchange.getResponseBody();
    out.write(bytes);
    out.flush();
    if (answer.hang()) {
      try {
        Thread.sleep(60_000);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }
    try {
      exchange.close();
    } catch (IllegalStateException e) {
      // Closing before the promised length is what was wanted.
    }
  }

  private static String header(HttpExchange exchange, String name) {
    String value = exchange.getRequestHeaders().getFirst(name);
    return value == null ? "" : value;
  }

  @Override
  public void close() {
    threads.shutdownNow();
    server.stop(0);
  }
}
