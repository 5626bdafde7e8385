package dev.foredeck.agent;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.StandardProtocolFamily;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.concurrent.Semaphore;

/// Leads a port on the sandbox's loopback to the egress gateway. Copies bytes and decides nothing:
/// the gateway does.
///
/// Threads: one accepts, two virtual threads copy for each connection.
final class Bridge {
  private static final int CONNECTIONS = 256;
  private static final int COPY_BYTES = 16 * 1024;
  private static final long RETRY_MILLIS = 500;

  private final int port;
  private final GatewayDialler gateway;
  private final Semaphore connections = new Semaphore(CONNECTIONS);

  Bridge(int port, GatewayDialler gateway) {
    this.port = port;
    this.gateway = gateway;
  }

  /// Serves for ever; where the port is taken, tries again until it is free.
  void run() throws InterruptedException {
    boolean said = false;
    while (true) {
      try (ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.INET)) {
        byte[] loopback = {127, 0, 0, 1};
        server.bind(new InetSocketAddress(InetAddress.getByAddress(loopback), port), CONNECTIONS);
        while (true) {
          connections.acquire();
          boolean accepted = false;
          try {
            SocketChannel client = server.accept();
            Thread _ = Thread.ofVirtual().start(() -> serve(client));
            accepted = true;
          } finally {
            if (!accepted) {
              connections.release();
            }
          }
        }
      } catch (IOException e) {
        if (!said) {
          Log.warn("the bridge to the egress gateway cannot listen on port " + port, e);
          said = true;
        }
      }
      Thread.sleep(RETRY_MILLIS);
    }
  }

  private void serve(SocketChannel accepted) {
    try (Duplex client = Duplex.of(accepted);
        Duplex upstream = gateway.dial()) {
      Thread back = Thread.ofVirtual().start(() -> copy(upstream, client));
      copy(client, upstream);
      back.join();
    } catch (IOException _) {
      // The gateway is not there: the client sees its connection closed.
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    } finally {
      connections.release();
    }
  }

  /// Copies one direction to its end, and passes the end on; an error ends both directions.
  private static void copy(Duplex from, Duplex to) {
    byte[] buffer = new byte[COPY_BYTES];
    try {
      for (int n = from.in().read(buffer); n >= 0; n = from.in().read(buffer)) {
        to.out().write(buffer, 0, n);
      }
      to.endOutput();
    } catch (IOException _) {
      from.close();
      to.close();
    }
  }
}
