package dev.foredeck.egress;

import static dev.foredeck.egress.RawClient.head;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.util.Arrays;
import java.util.Locale;

/// Prints what the gateway adds to a request and takes from a transfer, beside the same without it,
/// all on loopback (where everything else costs nothing: the worst case). A report, not a test.
final class EgressBenchmark {
  private static final int REQUESTS = 5_000;
  private static final int MEBIBYTES = 512;

  private EgressBenchmark() {}

  private interface Opening {
    RawClient open() throws IOException;
  }

  public static void main(String[] arguments) throws Exception {
    String small = head("HTTP/1.1 200 OK", "Content-Length: 5") + "hello";
    byte[] mebibyte = new byte[1 << 20];
    long size = (long) MEBIBYTES << 20;
    ScriptedServer.Script large =
        connection -> {
          connection.readUntil("\r\n\r\n");
          connection.send(head("HTTP/1.1 200 OK", "Content-Length: " + size));
          for (int i = 0; i < MEBIBYTES; i++) {
            connection.send(mebibyte);
          }
        };
    EgressLimits defaults = EgressLimits.DEFAULT;
    EgressLimits wide =
        new EgressLimits(
            defaults.connections(),
            100_000,
            defaults.headBytes(),
            defaults.headers(),
            defaults.helloBytes(),
            1L << 40,
            1L << 40,
            1L << 40,
            defaults.headMillis(),
            defaults.resolveMillis(),
            defaults.connectMillis(),
            defaults.idleMillis(),
            defaults.totalMillis(),
            defaults.lookups(),
            defaults.pendingFlows());
    try (ScriptedServer hello =
            new ScriptedServer(connection -> {
              connection.readUntil("\r\n\r\n");
              connection.send(small);
            });
        ScriptedServer bulk = new ScriptedServer(large);
        GatewayFixture fixture =
            GatewayFixture.pinned(
                Way.SOCKET, wide, "s.test", hello.port(), "bulk.test", bulk.port());
        GatewayFixture linked =
            GatewayFixture.pinned(
                Way.LINK, wide, "s.test", hello.port(), "bulk.test", bulk.port())) {
      String direct = head("GET / HTTP/1.1", "Host: s.test");
      String proxied = head("GET http://s.test/ HTTP/1.1", "Host: s.test");
      for (int round = 0; round < 2; round++) {
        report("request, direct", requests(() -> tcp(hello.port()), direct));
        report("request, gateway", requests(fixture::connect, proxied));
        report("request, link", requests(linked::connect, proxied));
      }
      for (int round = 0; round < 2; round++) {
        transfer("transfer, direct", tcp(bulk.port()), head("GET / HTTP/1.1", "Host: bulk.test"));
        String get = head("GET http://bulk.test/ HTTP/1.1", "Host: bulk.test");
        transfer("transfer, gateway", fixture.connect(), get);
        transfer("transfer, link", linked.connect(), get);
      }
    }
  }

  private static RawClient tcp(int port) throws IOException {
    return new RawClient(
        SocketChannel.open(new InetSocketAddress(InetAddress.getLoopbackAddress(), port)));
  }

  private static long[] requests(Opening opening, String request) throws IOException {
    long[] nanos = new long[REQUESTS];
    for (int i = 0; i < REQUESTS; i++) {
      long start = System.nanoTime();
      try (RawClient client = opening.open()) {
        client.send(request);
        client.readAll();
      }
      nanos[i] = System.nanoTime() - start;
    }
    Arrays.sort(nanos);
    return nanos;
  }

  private static void report(String what, long[] nanos) {
    System.out.printf(
        Locale.ROOT,
        "%-18s n=%d p50 %d us, p90 %d us, p99 %d us%n",
        what,
        nanos.length,
        nanos[nanos.length / 2] / 1000,
        nanos[nanos.length * 9 / 10] / 1000,
        nanos[nanos.length * 99 / 100] / 1000);
  }

  private static void transfer(String what, RawClient client, String request) throws IOException {
    ByteBuffer buffer = ByteBuffer.allocateDirect(256 * 1024);
    long start = System.nanoTime();
    long read = 0;
    try (client) {
      client.send(request);
      while (client.channel.read(buffer) >= 0) {
        read += buffer.position();
        buffer.clear();
      }
    }
    double seconds = (System.nanoTime() - start) / 1e9;
    System.out.printf(Locale.ROOT, "%-18s %.0f MB/s%n", what, read / seconds / 1e6);
  }
}
