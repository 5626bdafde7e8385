package dev.foredeck.egress;

import static dev.foredeck.egress.RawClient.head;
import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.egress.EgressGateway.Flow;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.Parameter;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.provider.EnumSource;

/// What a sandbox can make the gateway do or hold has an end, and each end is told and recorded.
@Timeout(60)
@ParameterizedClass
@EnumSource(Way.class)
class LimitsTest {
  @Parameter Way way = Way.SOCKET;

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
      return limits(64);
    }

    EgressLimits limits(int pendingFlows) {
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
          pendingFlows);
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
        GatewayFixture fixture = way.pinned(few.limits(), "s.test", server.port())) {
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
    try (GatewayFixture fixture = way.pinned(few.limits())) {
      assertThat(fixture.ask(head("GET http://s.test/ HTTP/1.1", "X: " + "y".repeat(300))))
          .startsWith("HTTP/1.1 431 ");
      assertLimit(fixture, "larger than 300 bytes");
    }
  }

  @Test
  void answers408ToAHeadThatDrips() throws Exception {
    try (GatewayFixture fixture = way.pinned(times(200, LONG, LONG, LONG, LONG).limits());
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
            way.pinned(times(200, LONG, LONG, LONG, LONG).limits(), "s.test", server.port())) {
      assertThat(fixture.ask(head("CONNECT s.test:443 HTTP/1.1", "Host: s.test:443") + "\u0016"))
          .endsWith("200 Connection established\r\n\r\n");
      assertLimit(fixture, "the TLS ClientHello took longer than 200 ms");
    }
  }

  @Test
  void answers504ToASilentServer() throws Exception {
    try (ScriptedServer server = silent();
        GatewayFixture fixture =
            way.pinned(times(LONG, LONG, LONG, 200, LONG).limits(), "s.test", server.port())) {
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
            way.pinned(times(LONG, LONG, LONG, LONG, 300).limits(), "s.test", server.port())) {
      assertThat(fixture.ask(GET)).startsWith("HTTP/1.1 200 ").doesNotEndWith("0\r\n\r\n");
      assertLimit(fixture, "lasted longer than 300 ms");
    }
  }

  @Test
  void leavesAnIdleTunnelAllowed() throws Exception {
    try (ScriptedServer server = silent();
        GatewayFixture fixture =
            way.pinned(times(LONG, LONG, LONG, 200, LONG).limits(), "s.test", server.port());
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
        GatewayFixture fixture = way.pinned(few.limits(), "s.test", server.port())) {
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
        GatewayFixture fixture = way.pinned(few.limits(), "s.test", server.port())) {
      assertThat(fixture.ask(GET)).endsWith("xxx");
      assertThat(fixture.nextFlow().effect()).isEqualTo("allow");
      fixture.open(GatewayFixture.RULES);
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
    Resolver stuck =
        name -> {
          try {
            never.await();
          } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
          }
          return List.of();
        };
    try (GatewayFixture fixture =
        new GatewayFixture(way, times(LONG, 200, LONG, LONG, LONG).limits(), Map.of(), stuck)) {
      // The second finds the sandbox's one lookup still under way.
      for (int i = 0; i < 2; i++) {
        assertThat(fixture.ask(GET)).startsWith("HTTP/1.1 502 ").contains("within 200 ms");
        assertThat(fixture.nextFlow().rule()).isEqualTo("unresolved");
      }
    } finally {
      never.countDown();
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
          way.pinned(
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
          GatewayFixture fixture = way.pinned(Few.none().limits(), "s.test", server.port());
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
        fixture.assertShut();
      }
    }
  }

  @Test
  void failsClosedWhereTheRulesFail() throws Exception {
    try (GatewayFixture fixture = new GatewayFixture(way, Few.none().limits(), Map.of())) {
      fixture.open((host, port, method, path) -> {
        throw new IllegalStateException("broken rules");
      });
      assertThat(fixture.ask(GET)).startsWith("HTTP/1.1 403 ");
      assertThat(fixture.nextFlow().rule()).isEqualTo("policy-error");
    }
  }
}
