package dev.foredeck.egress;

import static dev.foredeck.egress.RawClient.head;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway.Flow;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/// What a sandbox can make the gateway do or hold has an end, and each end is told and recorded.
@Timeout(60)
class LimitsTest {
  private static final String GET = head("GET http://s.test/ HTTP/1.1", "Host: s.test");
  private static final long LONG = 60_000;

  /// The limits that these tests reach; all others are the default.
  private record Few(
      int connections,
      int headBytes,
      long bytesPerFlow,
      long bytesPerSandbox,
      long headMillis,
      long resolveMillis,
      long connectMillis,
      long idleMillis,
      long totalMillis) {
    static Few none() {
      return new Few(100, 4096, 1 << 30, 1 << 30, LONG, LONG, LONG, LONG, LONG);
    }

    EgressLimits limits() {
      return new EgressLimits(
          connections,
          1000,
          headBytes,
          50,
          8192,
          bytesPerFlow,
          bytesPerSandbox,
          1L << 40,
          headMillis,
          resolveMillis,
          connectMillis,
          idleMillis,
          totalMillis,
          1,
          2);
    }
  }

  private static Few times(long head, long resolve, long connect, long idle, long total) {
    return new Few(100, 4096, 1 << 30, 1 << 30, head, resolve, connect, idle, total);
  }

  private static ScriptedServer silent() throws IOException {
    return new ScriptedServer(RawClient::readAll);
  }

  private static void assertLimit(GatewayFixture fixture, String reason) throws Exception {
    Flow flow = fixture.nextFlow();
    assertThat(flow.effect()).isEqualTo("deny");
    assertThat(flow.rule()).isEqualTo("limit");
    assertThat(flow.reason()).contains(reason);
  }

  @Test
  void answers503ToOneConnectionTooMany() throws Exception {
    Few few = new Few(1, 4096, 1 << 30, 1 << 30, LONG, LONG, LONG, LONG, LONG);
    try (ScriptedServer server = silent();
        GatewayFixture fixture = GatewayFixture.pinned(few.limits(), "s.test", server.port())) {
      try (RawClient first = fixture.connect();
          RawClient second = fixture.connect()) {
        first.send("GET");
        assertThat(second.readAll()).startsWith("HTTP/1.1 503 ").contains("retry-after: 1");
        assertLimit(fixture, "1 connections open");
      }
    }
  }

  @Test
  void answers431ToALargeHead() throws Exception {
    Few few = new Few(9, 300, 1 << 30, 1 << 30, LONG, LONG, LONG, LONG, LONG);
    try (GatewayFixture fixture = GatewayFixture.pinned(few.limits())) {
      assertThat(fixture.ask(head("GET http://s.test/ HTTP/1.1", "X: " + "y".repeat(300))))
          .startsWith("HTTP/1.1 431 ");
      assertLimit(fixture, "larger than 300 bytes");
    }
  }

  @Test
  void answers408ToAHeadThatDrips() throws Exception {
    try (GatewayFixture fixture =
            GatewayFixture.pinned(times(200, LONG, LONG, LONG, LONG).limits());
        RawClient client = fixture.connect()) {
      Thread dripping =
          Thread.ofVirtual()
              .start(() -> {
                try {
                  client.send("GET http://s.test/ HTTP/1.1\r\n");
                  while (true) {
                    client.send("X: y\r\n");
                    Thread.sleep(20);
                  }
                } catch (IOException | InterruptedException _) {
                  // The gateway has had enough, which is the point.
                }
              });
      assertThat(client.readAll()).startsWith("HTTP/1.1 408 ");
      assertLimit(fixture, "the request head took longer than 200 ms");
      dripping.join();
    }
  }

  @Test
  void endsATunnelThatNeverSaysHello() throws Exception {
    try (ScriptedServer server = silent();
        GatewayFixture fixture =
            GatewayFixture.pinned(
                times(200, LONG, LONG, LONG, LONG).limits(), "s.test", server.port())) {
      assertThat(fixture.ask(head("CONNECT s.test:443 HTTP/1.1", "Host: s.test:443") + "\u0016"))
          .endsWith("200 Connection established\r\n\r\n");
      assertLimit(fixture, "the TLS ClientHello took longer than 200 ms");
    }
  }

  @Test
  void answers504ToASilentServer() throws Exception {
    try (ScriptedServer server = silent();
        GatewayFixture fixture =
            GatewayFixture.pinned(
                times(LONG, LONG, LONG, 200, LONG).limits(), "s.test", server.port())) {
      assertThat(fixture.ask(GET)).startsWith("HTTP/1.1 504 ");
      assertLimit(fixture, "no byte moved for 200 ms");
    }
  }

  @Test
  void endsWhatLastsTooLong() throws Exception {
    ScriptedServer.Script dripping =
        connection -> {
          connection.readUntil("\r\n\r\n");
          connection.send(head("HTTP/1.1 200 OK"));
          while (true) {
            connection.send("x");
            Thread.onSpinWait();
          }
        };
    try (ScriptedServer server = new ScriptedServer(dripping);
        GatewayFixture fixture =
            GatewayFixture.pinned(
                times(LONG, LONG, LONG, LONG, 300).limits(), "s.test", server.port())) {
      assertThat(fixture.ask(GET)).startsWith("HTTP/1.1 200 ").doesNotEndWith("0\r\n\r\n");
      assertLimit(fixture, "lasted longer than 300 ms");
    }
  }

  @Test
  void leavesAnIdleTunnelAllowed() throws Exception {
    try (ScriptedServer server = silent();
        GatewayFixture fixture =
            GatewayFixture.pinned(
                times(LONG, LONG, LONG, 200, LONG).limits(), "s.test", server.port());
        RawClient client = fixture.connect()) {
      client.send(head("CONNECT s.test:443 HTTP/1.1", "Host: s.test:443"));
      client.send(ClientHelloTest.hello("s.test"));
      client.readAll();
      Flow flow = fixture.nextFlow();
      assertThat(flow.effect()).isEqualTo("allow");
      assertThat(flow.reason()).isEqualTo("the tunnel ended: no byte moved for 200 ms");
    }
  }

  @Test
  void endsAFlowAtItsBytes() throws Exception {
    String answer = head("HTTP/1.1 200 OK") + "x".repeat(300_000);
    Few few = new Few(9, 4096, 100_000, 1 << 30, LONG, LONG, LONG, LONG, LONG);
    try (ScriptedServer server = ScriptedServer.answering(answer);
        GatewayFixture fixture = GatewayFixture.pinned(few.limits(), "s.test", server.port())) {
      assertThat(fixture.ask(GET)).hasSizeLessThan(101_000).doesNotEndWith("0\r\n\r\n");
      Flow flow = fixture.nextFlow();
      assertThat(flow.rule()).isEqualTo("limit");
      assertThat(flow.bytesIn() + flow.bytesOut()).isLessThanOrEqualTo(100_000);
    }
  }

  @Test
  void endsASandboxAtItsBytesAndKeepsCountWhenOpenedAgain() throws Exception {
    Few few = new Few(9, 4096, 1 << 30, 500, LONG, LONG, LONG, LONG, LONG);
    String answer = head("HTTP/1.1 200 OK", "Content-Length: 300") + "x".repeat(300);
    try (ScriptedServer server = ScriptedServer.answering(answer);
        GatewayFixture fixture = GatewayFixture.pinned(few.limits(), "s.test", server.port())) {
      assertThat(fixture.ask(GET)).endsWith("xxx");
      assertThat(fixture.nextFlow().effect()).isEqualTo("allow");
      fixture.gateway.open(
          GatewayFixture.SANDBOX, fixture.socket, GatewayFixture.RULES, fixture.flows::add);
      fixture.ask(GET);
      assertLimit(fixture, "the sandbox reached its limit of 500 bytes");
      assertThat(
              fixture.ask(
                  head("PUT http://s.test/ HTTP/1.1", "Host: s.test", "X: " + "y".repeat(300))))
          .startsWith("HTTP/1.1 403 Denied by Foredeck (limit)");
    }
  }

  @Test
  void givesUpOnASlowResolver() throws Exception {
    CountDownLatch never = new CountDownLatch(1);
    Path folder = Files.createTempDirectory("egress");
    Path socket = folder.resolve("s");
    LinkedBlockingQueue<Flow> flows = new LinkedBlockingQueue<>();
    Resolver stuck =
        name -> {
          try {
            never.await();
          } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
          }
          return List.of();
        };
    try (HttpEgressGateway gateway =
        new HttpEgressGateway(
            times(LONG, 200, LONG, LONG, LONG).limits(),
            Pins.NONE,
            stuck,
            Set::of,
            System::nanoTime)) {
      gateway.open(GatewayFixture.SANDBOX, socket, GatewayFixture.RULES, flows::add);
      // The second finds the sandbox's one lookup still under way.
      for (int i = 0; i < 2; i++) {
        try (RawClient client =
            new RawClient(SocketChannel.open(UnixDomainSocketAddress.of(socket)))) {
          client.send(GET);
          assertThat(client.readAll()).startsWith("HTTP/1.1 502 ").contains("within 200 ms");
        }
        assertThat(flows.take().rule()).isEqualTo("unresolved");
      }
    } finally {
      never.countDown();
      Files.delete(folder);
    }
  }

  @Test
  void givesUpOnAServerThatDoesNotAccept() throws Exception {
    List<SocketChannel> filling = new ArrayList<>();
    try (ServerSocketChannel full = ServerSocketChannel.open()) {
      full.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 1);
      for (int i = 0; i < 8; i++) {
        SocketChannel one = SocketChannel.open();
        one.configureBlocking(false);
        one.connect(full.getLocalAddress());
        filling.add(one);
      }
      try (GatewayFixture fixture =
          GatewayFixture.pinned(
              times(LONG, LONG, 300, LONG, LONG).limits(),
              "s.test",
              full.socket().getLocalPort())) {
        assertThat(fixture.ask(GET))
            .startsWith("HTTP/1.1 504 ")
            .contains("no answer within 300 ms");
        assertThat(fixture.nextFlow().effect()).isEqualTo("allow");
      }
    } finally {
      for (SocketChannel one : filling) {
        one.close();
      }
    }
  }

  @Test
  void recordsOpenFlowsOnceWhenClosed() throws Exception {
    for (boolean whole : new boolean[] {true, false}) {
      try (ScriptedServer server = silent();
          GatewayFixture fixture =
              GatewayFixture.pinned(Few.none().limits(), "s.test", server.port());
          RawClient tunnel = fixture.connect();
          RawClient request = fixture.connect();
          RawClient silent = fixture.connect()) {
        tunnel.send(head("CONNECT s.test:443 HTTP/1.1", "Host: s.test:443"));
        tunnel.readUntil("\r\n\r\n");
        tunnel.send(ClientHelloTest.hello("s.test"));
        request.send(head("PUT http://s.test/ HTTP/1.1", "Host: s.test", "Content-Length: 9"));
        request.send("x");
        silent.send("GET ");
        Thread.sleep(100); // Whether or not all have got far, each is recorded once.
        if (whole) {
          fixture.gateway.close();
        } else {
          fixture.gateway.close(GatewayFixture.SANDBOX);
          fixture.gateway.close(GatewayFixture.SANDBOX);
        }
        assertThat(fixture.flows).hasSize(3);
        assertThat(fixture.flows).allMatch(flow -> flow.reason().contains("closed"));
        assertThat(fixture.socket).doesNotExist();
        assertThatThrownBy(() -> SocketChannel.open(UnixDomainSocketAddress.of(fixture.socket)))
            .isInstanceOf(IOException.class);
      }
    }
  }

  @Test
  void losesNoFlowToARecorderThatIsSlowOrFails() throws Exception {
    Path folder = Files.createTempDirectory("egress");
    Path socket = folder.resolve("s");
    Semaphore pace = new Semaphore(0);
    AtomicLong recorded = new AtomicLong();
    try (HttpEgressGateway gateway =
        new HttpEgressGateway(
            Few.none().limits(), Pins.NONE, name -> List.of(), Set::of, System::nanoTime)) {
      gateway.open(
          GatewayFixture.SANDBOX,
          socket,
          GatewayFixture.RULES,
          flow -> {
            pace.acquireUninterruptibly();
            if (recorded.incrementAndGet() % 2 == 0) {
              throw new IllegalStateException("the log is not there");
            }
          });
      List<RawClient> clients = new ArrayList<>();
      for (int i = 0; i < 20; i++) {
        RawClient client = new RawClient(SocketChannel.open(UnixDomainSocketAddress.of(socket)));
        client.send(head("GET http://no.example/ HTTP/1.1", "Host: no.example"));
        clients.add(client);
      }
      pace.release(20);
      for (RawClient client : clients) {
        assertThat(client.readAll()).startsWith("HTTP/1.1 403 ");
        client.close();
      }
      gateway.close(GatewayFixture.SANDBOX);
      assertThat(recorded).hasValue(20);
    } finally {
      Files.delete(folder);
    }
  }

  @Test
  void ownsItsSocketAndNothingElse() throws Exception {
    try (GatewayFixture fixture = GatewayFixture.pinned(Few.none().limits())) {
      assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(fixture.socket)))
          .isEqualTo("rw-rw-rw-");
      Id other = new Id("sbx0000000000000002");
      assertThatThrownBy(
              () -> fixture.gateway.open(other, fixture.socket, GatewayFixture.RULES, _ -> {}))
          .hasMessageContaining("another sandbox");
      Path file = Files.createFile(fixture.folder.resolve("file"));
      assertThatThrownBy(() -> fixture.gateway.open(other, file, GatewayFixture.RULES, _ -> {}))
          .hasMessageContaining("other than a socket");
      assertThat(file).exists();
      Files.delete(file);
      Path deep = fixture.folder.resolve("x".repeat(100));
      assertThatThrownBy(() -> fixture.gateway.open(other, deep, GatewayFixture.RULES, _ -> {}))
          .hasMessageContaining("107");
      Path stale = fixture.folder.resolve("stale");
      try (ServerSocketChannel gone =
          ServerSocketChannel.open(java.net.StandardProtocolFamily.UNIX)) {
        gone.bind(UnixDomainSocketAddress.of(stale));
      }
      assertThat(stale).exists();
      fixture.gateway.open(other, stale, GatewayFixture.RULES, _ -> {});
      SocketChannel.open(UnixDomainSocketAddress.of(stale)).close();
      fixture.gateway.close();
      assertThat(stale).doesNotExist();
      assertThatThrownBy(() -> fixture.gateway.open(other, stale, GatewayFixture.RULES, _ -> {}))
          .hasMessageContaining("closed");
    }
  }

  @Test
  void failsClosedWhereTheRulesFail() throws Exception {
    try (GatewayFixture fixture = new GatewayFixture(Few.none().limits(), Map.of())) {
      fixture.gateway.open(
          GatewayFixture.SANDBOX,
          fixture.socket,
          (host, port, method, path) -> {
            throw new IllegalStateException("broken rules");
          },
          fixture.flows::add);
      assertThat(fixture.ask(GET)).startsWith("HTTP/1.1 403 ");
      assertThat(fixture.nextFlow().rule()).isEqualTo("policy-error");
    }
  }

  @Test
  void spreadsBytesOverTime() {
    AtomicLong now = new AtomicLong();
    try (Throttle throttle = new Throttle(1000, now::get)) {
      assertThat(throttle.reserve(1000)).isZero();
      assertThat(throttle.reserve(500)).isEqualTo(500_000_000L);
      assertThat(throttle.reserve(500)).isEqualTo(1_000_000_000L);
      now.addAndGet(1_500_000_000L);
      assertThat(throttle.reserve(500)).isZero();
      now.addAndGet(3_600_000_000_000L);
      assertThat(throttle.reserve(1000)).as("the burst is one second's worth").isZero();
      assertThat(throttle.reserve(1)).isPositive();
    }
  }
}
