package dev.foredeck.cli;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;

/// The page that the demo fetches where there is no internet: one site on this host, which only the
/// operator's pin makes reachable from a sandbox.
final class DemoSite implements AutoCloseable {
  static final String HOST = "demo.foredeck.internal";

  private final HttpServer server;
  private final ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor();
  private final AtomicInteger requests = new AtomicInteger();
  private final byte[] page;

  /// @param address of this host, as the egress gateway reaches it
  DemoSite(byte[] page, InetAddress address) {
    this.page = page.clone();
    try {
      server = HttpServer.create(new InetSocketAddress(address, 0), 16);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    server.setExecutor(threads);
    server.createContext("/", this::answer);
    server.start();
  }

  /// For the operator's list of pins.
  String pin() {
    InetSocketAddress bound = server.getAddress();
    return HOST + "=" + bound.getAddress().getHostAddress() + ":" + bound.getPort();
  }

  /// Pages given out.
  int requests() {
    return requests.get();
  }

  private void answer(HttpExchange exchange) throws IOException {
    try (exchange) {
      boolean get = exchange.getRequestMethod().equals("GET");
      if (!get && !exchange.getRequestMethod().equals("HEAD")) {
        exchange.sendResponseHeaders(405, -1);
        return;
      }
      requests.incrementAndGet();
      exchange.getResponseHeaders().set("Content-Type", "text/html; charset=utf-8");
      exchange.sendResponseHeaders(200, get ? page.length : -1);
      if (get) {
        try (OutputStream body = exchange.getResponseBody()) {
          body.write(page);
        }
      }
    }
  }

  @Override
  public void close() {
    server.stop(0);
    threads.shutdownNow();
  }
}
