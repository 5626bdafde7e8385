package dev.foredeck.egress;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.DeploymentTls;
import dev.foredeck.core.Hashes;
import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway;
import dev.foredeck.core.egress.EgressGateway.EgressRules;
import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.egress.EgressGateway.Verdict;
import dev.foredeck.core.egress.EgressPath;
import dev.foredeck.protocol.CertificatePin;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.UnixDomainSocketAddress;
import java.net.UnknownHostException;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/// A gateway, reached by the way that a test names, whose sandbox may reach the hosts under
/// `.test`. Names are resolved by a table; the servers of a test are reached by pins.
final class GatewayFixture implements AutoCloseable {
  static final Id SANDBOX = new Id("sbx0000000000000001");
  static final String CREDENTIAL = "c".repeat(64);
  static final LinkKey KEY = LinkKey.of("deployment".getBytes(StandardCharsets.UTF_8));
  static final DeploymentTls TLS = DeploymentTls.generate(new SecureRandom());
  static final CertificatePin PIN = CertificatePin.of(TLS.pin());
  static final EgressRules RULES =
      (host, port, method, path) -> {
        if (host.equals("shadow.test")) {
          return new Verdict(true, "default", "no rule allows " + host, true);
        }
        if (host.endsWith(".test") || Character.isDigit(host.charAt(0)) || host.contains(":")) {
          return new Verdict(true, "test-hosts", "tests may");
        }
        return new Verdict(false, "default", "no rule allows " + host);
      };

  final LinkedBlockingQueue<Flow> flows = new LinkedBlockingQueue<>();
  final Map<String, List<InetAddress>> names = new ConcurrentHashMap<>();
  final Path folder;
  final Path socket;
  final EgressGateway gateway;
  private final Way way;
  private final Deque<GatewayServer> servers = new ArrayDeque<>();
  private InetSocketAddress bridgeDoor = loopback(0);

  GatewayFixture(Way way, EgressLimits limits, Map<String, InetSocketAddress> pins)
      throws IOException {
    this(way, limits, pins, null);
  }

  /// @param resolver in place of the table
  GatewayFixture(
      Way way,
      EgressLimits limits,
      Map<String, InetSocketAddress> pins,
      @org.jspecify.annotations.Nullable Resolver resolver)
      throws IOException {
    this.way = way;
    folder = Files.createTempDirectory("egress");
    socket = folder.resolve("egress.sock");
    Resolver names = resolver != null ? resolver : this::resolve;
    gateway =
        switch (way) {
          case SOCKET ->
              new HttpEgressGateway(limits, new Pins(pins), names, Set::of, System::nanoTime);
          case LINK -> linked(limits, new Pins(pins), names);
        };
    open(RULES);
  }

  private EgressGateway linked(EgressLimits limits, Pins pins, Resolver names) throws IOException {
    GatewayServer server =
        new GatewayServer(
            new GatewayServer.Ports(loopback(0), loopback(0)),
            TLS,
            KEY,
            limits,
            LinkLimits.DEFAULT,
            pins,
            names,
            Set::of,
            System::nanoTime,
            new SecureRandom());
    servers.push(server);
    bridgeDoor = server.ports().sandboxes();
    return remote(server.ports().controlPlanes(), LinkLimits.DEFAULT);
  }

  static RemoteEgressGateway remote(InetSocketAddress gateway, LinkLimits limits) {
    return new RemoteEgressGateway(
        Map.of("gateway", Dialer.to(gateway.getHostString(), gateway.getPort())),
        PIN,
        KEY,
        "plane",
        limits,
        System::nanoTime,
        new SecureRandom());
  }

  static InetSocketAddress loopback(int port) {
    return new InetSocketAddress(InetAddress.getLoopbackAddress(), port);
  }

  static EgressPath credential() {
    return new EgressPath.Credential(Hashes.sha256(CREDENTIAL));
  }

  static GatewayFixture pinned(Way way, EgressLimits limits, Object... hostsAndPorts)
      throws IOException {
    Map<String, InetSocketAddress> pins = new HashMap<>();
    for (int i = 0; i < hostsAndPorts.length; i += 2) {
      pins.put((String) hostsAndPorts[i], loopback((Integer) hostsAndPorts[i + 1]));
    }
    return new GatewayFixture(way, limits, pins);
  }

  private List<InetAddress> resolve(String name) throws UnknownHostException {
    List<InetAddress> found = names.get(name);
    if (found == null) {
      throw new UnknownHostException(name);
    }
    return found;
  }

  /// Opens again.
  void open(EgressRules rules) throws IOException {
    open(rules, flows::add);
  }

  void open(EgressRules rules, EgressGateway.FlowRecorder recorder) throws IOException {
    EgressPath path =
        switch (way) {
          case SOCKET -> new EgressPath.UnixSocket(socket);
          case LINK -> credential();
        };
    gateway.open(SANDBOX, path, rules, recorder);
  }

  /// As the sandbox's bridge connects.
  ByteConnection dial() throws IOException {
    return switch (way) {
      case SOCKET -> ByteConnection.of(SocketChannel.open(UnixDomainSocketAddress.of(socket)));
      case LINK -> bridge(bridgeDoor, SANDBOX, CREDENTIAL);
    };
  }

  static TlsConnection bridge(InetSocketAddress door, Id sandbox, String credential)
      throws IOException {
    return bridge(door, PIN, sandbox, credential);
  }

  static TlsConnection bridge(
      InetSocketAddress door, CertificatePin pin, Id sandbox, String credential)
      throws IOException {
    TlsConnection connection = new TlsConnection(SocketChannel.open(door), pin.engine());
    connection.handshake();
    new RawClient(connection).send("FOREDECK/1 " + sandbox + " " + credential + "\n");
    return connection;
  }

  RawClient connect() throws IOException {
    return new RawClient(dial());
  }

  /// Sends a request as it stands and reads until the gateway closes.
  String ask(String request) throws IOException {
    try (RawClient client = connect()) {
      client.send(request);
      return client.readAll();
    }
  }

  /// Nobody is there to answer the sandbox.
  void assertShut() throws IOException {
    switch (way) {
      case SOCKET -> assertThatThrownBy(this::dial).isInstanceOf(IOException.class);
      case LINK -> assertThat(answerOrNone("GET http://site.test/ HTTP/1.1\r\n\r\n")).isEmpty();
    }
  }

  /// What comes back where the door may shut at any point, the greeting included.
  private String answerOrNone(String request) {
    try {
      return ask(request);
    } catch (IOException _) {
      return "";
    }
  }

  Flow nextFlow() throws InterruptedException {
    Flow flow = flows.poll(20, TimeUnit.SECONDS);
    assertThat(flow).as("a flow within 20 s").isNotNull();
    if (flow == null) {
      throw new AssertionError("unreachable");
    }
    return flow;
  }

  void noMoreFlows() {
    gateway.close();
    assertThat(flows).isEmpty();
  }

  @Override
  public void close() throws IOException {
    gateway.close();
    while (!servers.isEmpty()) {
      servers.pop().close();
    }
    Files.deleteIfExists(socket);
    Files.delete(folder);
  }
}
