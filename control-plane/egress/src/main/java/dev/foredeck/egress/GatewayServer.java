package dev.foredeck.egress;

import dev.foredeck.core.DeploymentTls;
import java.io.DataInputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.security.SecureRandom;
import java.util.HexFormat;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import java.util.regex.Pattern;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// The egress gateway as a process of its own. Sandboxes' bridges come to one port and show a
/// credential, control planes come to another and show that they hold the link's key. What a
/// sandbox may reach is asked of its control plane for each request; without one, nothing goes out.
///
/// It holds no policy and nothing on disk. Flows that a control plane has not recorded are kept in
/// memory, within bounds; where there is no room for one more, connections are refused.
public final class GatewayServer implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(GatewayServer.class);
  private static final Pattern NAME = Pattern.compile("[!-~]{1,100}");
  private static final int GATEWAY_ID_BYTES = 10;
  private static final int NONCE_BYTES = 32;
  private static final long SWEEP_MILLIS = 1_000;
  private static final long DRAIN_MILLIS = 15_000;
  private static final long LOOK_MILLIS = 20;

  /// @param sandboxes where bridges come
  /// @param controlPlanes where links come; sandboxes need not reach it
  public record Ports(InetSocketAddress sandboxes, InetSocketAddress controlPlanes) {}

  private final LinkKey key;
  private final LinkLimits limits;
  private final Surroundings around;
  private final SecureRandom random;
  private final String gateway;
  private final LinkedSandboxes sandboxes;
  private final Set<ControlPlaneLink> links = ConcurrentHashMap.newKeySet();
  private final Thread sweeper;
  private final Door bridgeDoor;
  private final Door controlDoor;

  /// Listens at once.
  ///
  /// @param tls what bridges and control planes pin
  /// @param ownAddresses of this host, which no sandbox may reach; see [LocalAddresses]
  /// @param nanoTime monotonic, as `System.nanoTime`
  /// @throws IOException where an address cannot be had
  public GatewayServer(
      Ports ports,
      DeploymentTls tls,
      LinkKey key,
      EgressLimits egressLimits,
      LinkLimits limits,
      Pins pins,
      Resolver resolver,
      Supplier<Set<InetAddress>> ownAddresses,
      LongSupplier nanoTime,
      SecureRandom random)
      throws IOException {
    this.key = key;
    this.limits = limits;
    this.random = random;
    this.gateway = random(GATEWAY_ID_BYTES);
    this.around = Surroundings.of(egressLimits, pins, resolver, ownAddresses, nanoTime);
    this.sandboxes = new LinkedSandboxes(around, limits);
    try {
      controlDoor =
          new Door(
              "control", ports.controlPlanes(), tls, limits, around.timer(), nanoTime, this::link);
      try {
        bridgeDoor =
            new Door(
                "bridge", ports.sandboxes(), tls, limits, around.timer(), nanoTime, this::serve);
      } catch (IOException e) {
        controlDoor.close();
        throw e;
      }
    } catch (IOException e) {
      around.close();
      throw e;
    }
    sweeper = Thread.ofVirtual().name("egress-sweep").start(this::sweep);
  }

  /// As bound.
  public Ports ports() {
    return new Ports(bridgeDoor.address(), controlDoor.address());
  }

  private String random(int bytes) {
    byte[] chosen = new byte[bytes];
    random.nextBytes(chosen);
    return HexFormat.of().formatHex(chosen);
  }

  /// Not the timer's: it may wait for a sandbox whose link is stuck, which the timer ends.
  private void sweep() {
    try {
      while (true) {
        Thread.sleep(SWEEP_MILLIS);
        sandboxes.sweep();
      }
    } catch (InterruptedException _) {
      log.debug("sweeping ends with the gateway");
    }
  }

  private void serve(TlsConnection connection, InetAddress from, Door.Stranger stranger)
      throws IOException, InterruptedException {
    sandboxes.find(Preamble.read(connection)).serve(connection, stranger::known);
  }

  private void link(TlsConnection connection, InetAddress from, Door.Stranger stranger)
      throws IOException {
    String nonce = random(NONCE_BYTES);
    Link.write(
        connection,
        new LinkMessage.Hello(LinkMessage.VERSION, LinkMessage.VERSION, gateway, nonce));
    DataInputStream in = Link.input(connection);
    if (!(LinkCodec.read(in, LinkCodec.MAX_FIRST_FRAME)
        instanceof LinkMessage.Login(int version, String controlPlane, String proof))) {
      throw turnedAway(connection, "a link begins with a login");
    }
    if (version != LinkMessage.VERSION) {
      throw turnedAway(connection, "this gateway speaks version " + LinkMessage.VERSION);
    }
    if (!key.proves(proof, gateway, nonce, controlPlane) || !NAME.matcher(controlPlane).matches()) {
      log.warn("a control plane at {} did not prove that it is one", from);
      throw turnedAway(connection, "the proof does not hold: the keys differ");
    }
    if (links.size() >= limits.links()) {
      throw turnedAway(connection, "this gateway has " + limits.links() + " links, its limit");
    }
    stranger.known();
    try (connection) {
      Link.write(connection, new LinkMessage.Welcome());
      run(controlPlane, connection, in);
    }
  }

  private void run(String controlPlane, TlsConnection connection, DataInputStream in) {
    ControlPlaneLink link =
        new ControlPlaneLink(
            controlPlane,
            new Link(controlPlane, connection, in, limits, around.timer(), around.nanoTime()),
            sandboxes,
            limits);
    links.add(link);
    try {
      link.run();
    } finally {
      links.remove(link);
    }
  }

  private static IOException turnedAway(TlsConnection connection, String reason)
      throws IOException {
    Link.write(connection, new LinkMessage.Farewell(reason));
    connection.shutdownOutput();
    return new IOException(reason);
  }

  /// Flows that no control plane has recorded yet.
  public int keptFlows() {
    return sandboxes.kept();
  }

  /// Ends every connection and waits, within a bound, until their flows are recorded.
  @Override
  public void close() {
    bridgeDoor.close();
    sandboxes.stop();
    long until = around.nanoTime().getAsLong() + TimeUnit.MILLISECONDS.toNanos(DRAIN_MILLIS);
    try {
      while (!sandboxes.isSettled() && until - around.nanoTime().getAsLong() > 0) {
        Thread.sleep(LOOK_MILLIS);
      }
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    }
    if (sandboxes.kept() > 0) {
      log.error("{} flows are lost: no control plane took them in time", sandboxes.kept());
    }
    sweeper.interrupt();
    controlDoor.close();
    links.forEach(ControlPlaneLink::close);
    around.close();
  }
}
