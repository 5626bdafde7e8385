package dev.foredeck.app;

import com.sun.net.httpserver.HttpServer;
import dev.foredeck.app.Configuration.ConfigurationException;
import dev.foredeck.egress.EgressLimits;
import dev.foredeck.egress.GatewayServer;
import dev.foredeck.egress.LinkLimits;
import dev.foredeck.egress.LocalAddresses;
import dev.foredeck.egress.Pins;
import dev.foredeck.egress.Resolver;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/// A running egress gateway, and what the kubelet asks whether it runs.
final class Gateway implements AutoCloseable {
  private static final byte[] OK = "ok\n".getBytes(StandardCharsets.US_ASCII);
  private static final int BACKLOG = 16;

  private final HttpServer health;
  private final ExecutorService healthThreads;
  private final GatewayServer server;

  private Gateway(GatewayConfiguration configuration) throws IOException {
    // Whoever reaches the port that says ok cannot do more with it than this.
    System.setProperty("jdk.httpserver.maxConnections", "64");
    System.setProperty("sun.net.httpserver.maxReqTime", "5");
    System.setProperty("sun.net.httpserver.maxRspTime", "5");
    healthThreads = Executors.newVirtualThreadPerTaskExecutor();
    health = HttpServer.create(configuration.health(), BACKLOG);
    health.setExecutor(healthThreads);
    health.createContext(
        "/healthz",
        exchange -> {
          try (exchange) {
            exchange.sendResponseHeaders(200, OK.length);
            exchange.getResponseBody().write(OK);
          }
        });
    try {
      server =
          new GatewayServer(
              new GatewayServer.Ports(configuration.bridges(), configuration.controlPlanes()),
              configuration.tls(),
              configuration.key(),
              EgressLimits.DEFAULT,
              LinkLimits.DEFAULT,
              new Pins(configuration.pins()),
              Resolver.system(),
              new LocalAddresses(System::nanoTime),
              System::nanoTime,
              new SecureRandom());
    } catch (IOException | RuntimeException e) {
      health.stop(0);
      throw e;
    }
    health.start();
  }

  /// @throws ConfigurationException where an address or a pin cannot be used
  static Gateway start(GatewayConfiguration configuration) {
    try {
      return new Gateway(configuration);
    } catch (IOException | IllegalArgumentException e) {
      throw new ConfigurationException("the gateway cannot start: " + e.getMessage());
    }
  }

  /// Where sandboxes, control planes and the kubelet come, in this order.
  String addresses() {
    GatewayServer.Ports ports = server.ports();
    return text(ports.sandboxes())
        + " "
        + text(ports.controlPlanes())
        + " "
        + text(health.getAddress());
  }

  private static String text(InetSocketAddress address) {
    String host = address.getAddress().getHostAddress();
    return (host.contains(":") ? "[" + host + "]" : host) + ":" + address.getPort();
  }

  @Override
  public void close() {
    server.close();
    health.stop(0);
    healthThreads.close();
  }
}
