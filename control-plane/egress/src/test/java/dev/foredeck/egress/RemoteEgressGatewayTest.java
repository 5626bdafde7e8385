package dev.foredeck.egress;

import static dev.foredeck.egress.GatewayServerTest.FEW;
import static dev.foredeck.egress.GatewayServerTest.await;
import static dev.foredeck.egress.GatewayServerTest.server;
import static dev.foredeck.egress.RawClient.head;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway.Delivery;
import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.egress.EgressGateway.FlowRecorder;
import dev.foredeck.core.egress.EgressGateway.Verdict;
import dev.foredeck.core.egress.EgressPath;
import java.io.IOException;
import java.net.ConnectException;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/// The link as control plane and gateway live with it: cut, made again, taken over, too slow.
@Timeout(60)
class RemoteEgressGatewayTest {
  private static final Id SANDBOX = GatewayFixture.SANDBOX;

  /// A way that can be cut and barred.
  private static final class Cuttable implements Dialer {
    private final int port;
    private final Queue<SocketChannel> dialled = new ConcurrentLinkedQueue<>();
    private volatile boolean barred;

    Cuttable(GatewayServer server) {
      port = server.ports().controlPlanes().getPort();
    }

    @Override
    public SocketChannel dial(int timeoutMillis) throws IOException {
      if (barred) {
        throw new ConnectException("barred");
      }
      SocketChannel channel = Dialer.to("127.0.0.1", port).dial(timeoutMillis);
      dialled.add(channel);
      return channel;
    }

    void cut() throws IOException {
      for (SocketChannel channel : dialled) {
        channel.close();
      }
    }
  }

  /// Keeps what it is given and says nothing of it until it is told to.
  private static final class Holding implements FlowRecorder {
    final LinkedBlockingQueue<Flow> flows = new LinkedBlockingQueue<>();
    final LinkedBlockingQueue<Delivery> deliveries = new LinkedBlockingQueue<>();

    @Override
    public void record(Flow flow) {
      flows.add(flow);
    }

    @Override
    public void record(Flow flow, Delivery delivery) {
      deliveries.add(delivery);
      flows.add(flow);
    }

    Flow next() throws InterruptedException {
      Flow flow = flows.poll(20, TimeUnit.SECONDS);
      if (flow == null) {
        throw new AssertionError("no flow within 20 s");
      }
      return flow;
    }

    void tellAll() {
      deliveries.forEach(delivery -> delivery.recorded().run());
    }
  }

  private static RemoteEgressGateway plane(LinkLimits limits, Map<String, Dialer> gateways) {
    return new RemoteEgressGateway(
        gateways,
        GatewayFixture.PIN,
        GatewayFixture.KEY,
        "plane",
        limits,
        System::nanoTime,
        new SecureRandom());
  }

  private static RemoteEgressGateway plane(Dialer gateway) {
    return plane(LinkLimits.DEFAULT, Map.of("gateway", gateway));
  }

  private static void open(RemoteEgressGateway plane, FlowRecorder flows) throws IOException {
    plane.open(SANDBOX, GatewayFixture.credential(), GatewayFixture.RULES, flows);
  }

  private static RawClient connect(GatewayServer server) throws IOException {
    return new RawClient(
        GatewayFixture.bridge(server.ports().sandboxes(), SANDBOX, GatewayFixture.CREDENTIAL));
  }

  /// @return the answer; none where the gateway shuts its door on a sandbox it does not know, which
  ///   resets the connection at any point from the greeting on
  private static String ask(GatewayServer server, String host) {
    try (RawClient client = connect(server)) {
      client.send(head("GET http://" + host + "/ HTTP/1.1", "Host: " + host));
      return client.readAll();
    } catch (IOException _) {
      return "";
    }
  }

  @Test
  void deniesWithoutALinkAndTellsOfItAfterwards() throws Exception {
    Holding holding = new Holding();
    try (GatewayServer server = server(FEW)) {
      Cuttable way = new Cuttable(server);
      try (RemoteEgressGateway plane = plane(way)) {
        open(plane, holding);
        assertThat(ask(server, "no.example")).startsWith("HTTP/1.1 403 ");
        way.barred = true;
        way.cut();
        await(
            "the gateway has seen the cut",
            () -> {
              return ask(server, "no.example").contains("HTTP/1.1 503 ");
            });
        assertThat(ask(server, "no.example"))
            .startsWith("HTTP/1.1 503 Denied by Foredeck (unavailable): no control plane is linked")
            .contains("retry-after: 1");
        way.barred = false;
        await(
            "a flow of the time without a link",
            () -> holding.flows.stream().anyMatch(flow -> flow.rule().equals("unavailable")));
        await(
            "a decision again",
            () -> {
              return ask(server, "no.example").startsWith("HTTP/1.1 403 ");
            });
        await(
            "all were told",
            () -> {
              holding.tellAll();
              return server.keptFlows() == 0;
            });
      }
    }
  }

  @Test
  void keepsFlowsUntilTheyAreDurableAndHandsThemToAnotherControlPlaneAsRepeated() throws Exception {
    Holding first = new Holding();
    Holding second = new Holding();
    try (GatewayServer server = server(FEW)) {
      Cuttable way = new Cuttable(server);
      RemoteEgressGateway killed = plane(FEW, Map.of("gateway", way));
      open(killed, first);
      for (int i = 0; i < 3; i++) {
        ask(server, "no" + i + ".example");
        first.next();
      }
      assertThat(first.deliveries).allMatch(delivery -> !delivery.repeated());
      way.cut();
      await("linked again", () -> way.dialled.size() == 2);
      ask(server, "no3.example");
      await("a flow of the second link", () -> first.deliveries.size() == 4);
      assertThat(server.keptFlows()).as("none is durable").isEqualTo(4);
      Delivery durable = first.deliveries.take();
      durable.recorded().run();
      await("one is durable", () -> server.keptFlows() == 3);

      // As kill -9 leaves it: nothing is said.
      way.barred = true;
      way.cut();
      try (RemoteEgressGateway next = plane(new Cuttable(server))) {
        open(next, second);
        await("all that were not durable", () -> second.deliveries.size() == 3);
        assertThat(second.flows)
            .extracting(Flow::host)
            .containsExactly("no1.example", "no2.example", "no3.example");
        assertThat(second.deliveries).allMatch(Delivery::repeated);
        assertThat(second.deliveries)
            .extracting(Delivery::id)
            .containsExactlyElementsOf(first.deliveries.stream().map(Delivery::id).toList());
        second.tellAll();
        await("all are durable", () -> server.keptFlows() == 0);
      }
      killed.close();
    }
  }

  @Test
  void letsNobodyOutWhileThereIsNoRoomForTheirFlows() throws Exception {
    Holding holding = new Holding();
    EgressLimits all = EgressLimits.DEFAULT;
    EgressLimits two =
        new EgressLimits(
            128,
            200,
            4096,
            50,
            8192,
            1 << 30,
            1 << 30,
            1 << 30,
            all.headMillis(),
            5_000,
            5_000,
            all.idleMillis(),
            all.totalMillis(),
            4,
            2);
    try (GatewayServer server = server(FEW, 0, 0, two);
        RemoteEgressGateway plane = plane(new Cuttable(server))) {
      open(plane, holding);
      for (int i = 0; i < 2; i++) {
        assertThat(ask(server, "no.example")).startsWith("HTTP/1.1 403 ");
        holding.next();
      }
      for (int i = 0; i < 3; i++) {
        assertThat(ask(server, "no.example"))
            .startsWith("HTTP/1.1 503 ")
            .contains("the record of this sandbox's flows is behind");
      }
      assertThat(server.keptFlows()).isEqualTo(2);
      holding.tellAll();
      assertThat(holding.next().reason()).startsWith("3 connections were refused");
      holding.tellAll();
      await("room again", () -> server.keptFlows() == 0);
      assertThat(ask(server, "no.example")).startsWith("HTTP/1.1 403 ");
      holding.next();
      holding.tellAll();
    }
  }

  @Test
  void belongsToTheLinkThatOpenedItLast() throws Exception {
    Holding flows = new Holding();
    try (GatewayServer server = server(FEW);
        RemoteEgressGateway former = plane(new Cuttable(server));
        RemoteEgressGateway last = plane(new Cuttable(server))) {
      open(former, _ -> {});
      last.open(
          SANDBOX,
          GatewayFixture.credential(),
          (host, port, method, path) -> new Verdict(false, "last", "by the last"),
          flows);
      former.close(SANDBOX);
      assertThat(ask(server, "site.test")).startsWith("HTTP/1.1 403 Denied by Foredeck (last)");
      assertThat(flows.next().rule()).isEqualTo("last");
      flows.tellAll();
    }
  }

  /// A tunnel to a server that says nothing.
  private static RawClient tunnel(GatewayServer server) throws Exception {
    RawClient client = connect(server);
    client.send(head("CONNECT site.test:443 HTTP/1.1", "Host: site.test:443"));
    client.readUntil("\r\n\r\n");
    client.send(ClientHelloTest.hello("site.test"));
    return client;
  }

  private static GatewayServer pinned(LinkLimits limits, ScriptedServer site) throws IOException {
    return new GatewayServer(
        new GatewayServer.Ports(GatewayFixture.loopback(0), GatewayFixture.loopback(0)),
        GatewayFixture.TLS,
        GatewayFixture.KEY,
        EgressLimits.DEFAULT,
        limits,
        new Pins(Map.of("site.test", GatewayFixture.loopback(site.port()))),
        name -> java.util.List.of(),
        java.util.Set::of,
        System::nanoTime,
        new SecureRandom());
  }

  /// Tells what it is sent first, and no more.
  private static ScriptedServer silent() throws IOException {
    ScriptedServer[] self = new ScriptedServer[1];
    CountDownLatch made = new CountDownLatch(1);
    self[0] =
        new ScriptedServer(connection -> {
          String first = connection.readUntil("site.test");
          try {
            made.await();
          } catch (InterruptedException e) {
            throw new IOException(e);
          }
          self[0].received.add(first);
          connection.readAll();
        });
    made.countDown();
    return self[0];
  }

  private static ScriptedServer echo() throws IOException {
    return new ScriptedServer(connection -> {
      while (true) {
        connection.send(connection.readUntil("\n"));
      }
    });
  }

  @Test
  void letsATunnelGoOnOverABrokenLinkAndEndsItWhenItIsOpenedAnew() throws Exception {
    Holding flows = new Holding();
    try (ScriptedServer site = echo();
        GatewayServer server = pinned(FEW, site)) {
      Cuttable way = new Cuttable(server);
      try (RemoteEgressGateway plane = plane(way)) {
        open(plane, flows);
        try (RawClient client = tunnel(server)) {
          way.cut();
          await("linked again", () -> way.dialled.size() == 2);
          await(
              "opened again",
              () -> {
                return ask(server, "no.example").startsWith("HTTP/1.1 403 ");
              });
          client.send("still there\n");
          assertThat(client.readUntil("still there\n")).endsWith("still there\n");
          open(plane, flows);
          assertThat(client.readAll()).isEmpty();
        }
        await(
            "the tunnel's flow",
            () ->
                flows.flows.stream()
                    .anyMatch(flow -> flow.reason().contains("rules were replaced")));
        flows.tellAll();
      }
    }
  }

  @Test
  void endsATunnelThatNoControlPlaneLooksAfter() throws Exception {
    LinkLimits impatient =
        new LinkLimits(
            8, 4, 1_000, 300, 2, 3, 50_000, 15_000, 5_000, 200, 86_400_000L, 10_000, 10_000, 200);
    Holding flows = new Holding();
    try (ScriptedServer site = silent();
        GatewayServer server = pinned(impatient, site)) {
      Cuttable way = new Cuttable(server);
      try (RemoteEgressGateway plane = plane(way)) {
        open(plane, _ -> {});
        try (RawClient client = tunnel(server)) {
          way.barred = true;
          way.cut();
          assertThat(client.readAll()).isEmpty();
        }
        await("its flow is kept", () -> server.keptFlows() == 1);
        way.barred = false;
        // The control plane of after: it never opened it, and takes what is left of it.
        plane.close(SANDBOX);
        plane.close(SANDBOX, flows);
      }
      try (RemoteEgressGateway next = plane(new Cuttable(server))) {
        next.close(SANDBOX, flows);
      }
      flows.tellAll();
    }
  }

  @Test
  void hasEveryFlowBeforeACloseReturns() throws Exception {
    Holding flows = new Holding();
    try (ScriptedServer site = silent();
        GatewayServer server = pinned(FEW, site);
        RemoteEgressGateway plane = plane(new Cuttable(server))) {
      open(plane, flows);
      try (RawClient _ = tunnel(server)) {
        site.nextRequest();
        plane.close(SANDBOX);
        assertThat(flows.flows)
            .singleElement()
            .satisfies(flow -> {
              assertThat(flow.reason()).isEqualTo("the sandbox's egress was closed");
              assertThat(flow.bytesOut()).isPositive();
            });
      }
      assertThat(connect(server).readAll()).isEmpty();
      flows.tellAll();
    }
  }

  @Test
  void opensAtEveryGatewayAndAgainAtOneThatRestarted() throws Exception {
    Holding flows = new Holding();
    AtomicReference<GatewayServer> one = new AtomicReference<>(server(FEW));
    GatewayServer.Ports ports = one.get().ports();
    try (GatewayServer two = server(FEW)) {
      Map<String, Dialer> ways = new LinkedHashMap<>();
      ways.put("one", Dialer.to("127.0.0.1", ports.controlPlanes().getPort()));
      ways.put("two", new Cuttable(two));
      try (RemoteEgressGateway plane = plane(LinkLimits.DEFAULT, ways)) {
        open(plane, flows);
        await(
            "both are linked",
            () ->
                ask(one.get(), "no.example").startsWith("HTTP/1.1 403 ")
                    && ask(two, "no.example").startsWith("HTTP/1.1 403 "));
        flows.tellAll();
        one.get().close();
        assertThat(ask(two, "no.example")).startsWith("HTTP/1.1 403 ");
        one.set(
            server(
                FEW,
                ports.sandboxes().getPort(),
                ports.controlPlanes().getPort(),
                EgressLimits.DEFAULT));
        await("it is opened again", () -> ask(one.get(), "no.example").startsWith("HTTP/1.1 403 "));
        await(
            "all were told",
            () -> {
              flows.tellAll();
              return one.get().keptFlows() + two.keptFlows() == 0;
            });
      }
    } finally {
      one.get().close();
    }
  }

  @Test
  void saysThatNoGatewayIsThere() throws Exception {
    LinkLimits impatient =
        new LinkLimits(8, 4, 1_000, 300, 2, 3, 50, 15_000, 5_000, 200, 1_000, 300, 300, 200);
    Dialer nowhere =
        _ -> {
          throw new ConnectException("barred");
        };
    try (RemoteEgressGateway plane = plane(impatient, Map.of("gateway", nowhere))) {
      assertThatThrownBy(() -> open(plane, _ -> {}))
          .isInstanceOf(IOException.class)
          .hasMessage("no egress gateway answered within 300 ms");
      plane.close(SANDBOX);
      assertThatThrownBy(() ->
              plane.open(
                  SANDBOX, new EgressPath.UnixSocket(Path.of("/x")), GatewayFixture.RULES, _ -> {}))
          .hasMessageContaining("no unix socket");
    }
  }
}
