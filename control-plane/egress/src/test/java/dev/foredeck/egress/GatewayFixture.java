package dev.foredeck.egress;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway.EgressRules;
import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.egress.EgressGateway.Verdict;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.UnixDomainSocketAddress;
import java.net.UnknownHostException;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/// A gateway on a real unix socket whose sandbox may reach the hosts under `.test`. Names are
/// resolved by a table; the servers of a test are reached by pins.
final class GatewayFixture implements AutoCloseable {
  static final Id SANDBOX = new Id("sbx0000000000000001");
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
  final HttpEgressGateway gateway;

  GatewayFixture(EgressLimits limits, Map<String, InetSocketAddress> pins) throws IOException {
    folder = Files.createTempDirectory("egress");
    socket = folder.resolve("egress.sock");
    gateway =
        new HttpEgressGateway(limits, new Pins(pins), this::resolve, Set::of, System::nanoTime);
    gateway.open(SANDBOX, socket, RULES, flows::add);
  }

  static GatewayFixture pinned(EgressLimits limits, Object... hostsAndPorts) throws IOException {
    Map<String, InetSocketAddress> pins = new HashMap<>();
    for (int i = 0; i < hostsAndPorts.length; i += 2) {
      int port = (Integer) hostsAndPorts[i + 1];
      pins.put(
          (String) hostsAndPorts[i], new InetSocketAddress(InetAddress.getLoopbackAddress(), port));
    }
    return new GatewayFixture(limits, pins);
  }

  private List<InetAddress> resolve(String name) throws UnknownHostException {
    List<InetAddress> found = names.get(name);
    if (found == null) {
      throw new UnknownHostException(name);
    }
    return found;
  }

  RawClient connect() throws IOException {
    return new RawClient(SocketChannel.open(UnixDomainSocketAddress.of(socket)));
  }

  /// Sends a request as it stands and reads until the gateway closes.
  String ask(String request) throws IOException {
    try (RawClient client = connect()) {
      client.send(request);
      return client.readAll();
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
    Files.deleteIfExists(socket);
    Files.delete(folder);
  }
}
