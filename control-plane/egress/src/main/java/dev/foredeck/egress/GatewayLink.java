package dev.foredeck.egress;

import dev.foredeck.protocol.CertificatePin;
import java.io.DataInputStream;
import java.io.IOException;
import java.nio.channels.SocketChannel;
import java.util.concurrent.ScheduledExecutorService;
import java.util.function.LongSupplier;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// A control plane's end of the link to one gateway: links, links again when it breaks, and hands
/// what comes to the [RemoteEgressGateway].
///
/// Threading: [#run] on one thread, all else from any.
final class GatewayLink {
  private static final Logger log = LoggerFactory.getLogger(GatewayLink.class);
  private static final long FIRST_RETRY_MILLIS = 50;

  /// Whom what comes is for. Called by the link's thread, which must not wait.
  interface Listener {
    /// The link stands: orders may be sent.
    ///
    /// @param anew whether the gateway is not the one of before, or has forgotten all
    void linked(GatewayLink link, boolean anew);

    void received(GatewayLink link, LinkMessage message) throws IOException;

    /// The link broke, for now.
    void lost(GatewayLink link);
  }

  private final String name;
  private final Dialer dialer;
  private final CertificatePin pin;
  private final LinkKey key;
  private final String controlPlane;
  private final LinkLimits limits;
  private final ScheduledExecutorService timer;
  private final LongSupplier nanoTime;
  private final Listener listener;
  private volatile @Nullable Link link;
  private volatile String gateway = "";
  private volatile long lostNanos;
  private volatile boolean closed;
  private @Nullable Thread runner;

  GatewayLink(
      String name,
      Dialer dialer,
      CertificatePin pin,
      LinkKey key,
      String controlPlane,
      LinkLimits limits,
      ScheduledExecutorService timer,
      LongSupplier nanoTime,
      Listener listener) {
    this.name = name;
    this.dialer = dialer;
    this.pin = pin;
    this.key = key;
    this.controlPlane = controlPlane;
    this.limits = limits;
    this.timer = timer;
    this.nanoTime = nanoTime;
    this.listener = listener;
    this.lostNanos = nanoTime.getAsLong();
  }

  void start() {
    runner = Thread.ofVirtual().name("gateway-link-" + name).start(this::run);
  }

  private void run() {
    long retryMillis = FIRST_RETRY_MILLIS;
    String lastFault = "";
    while (!closed) {
      try {
        if (converse()) {
          retryMillis = FIRST_RETRY_MILLIS;
          lastFault = "";
        }
      } catch (IOException | RuntimeException e) {
        String fault = e.toString();
        if (!closed && !fault.equals(lastFault)) {
          log.warn("the egress gateway at {} cannot be linked: {}", name, fault);
          lastFault = fault;
        }
      }
      try {
        Thread.sleep(retryMillis);
      } catch (InterruptedException _) {
        return;
      }
      retryMillis = Math.min(2 * retryMillis, limits.mostRetryMillis());
    }
  }

  /// From the dial to the end of the link.
  ///
  /// @return true where it stood
  private boolean converse() throws IOException {
    SocketChannel channel = dialer.dial((int) limits.greetingMillis());
    try (TlsConnection connection = new TlsConnection(channel, pin.engine())) {
      DataInputStream in = Link.input(connection);
      LinkMessage.Hello hello = greet(connection, in);
      Link standing = new Link(name, connection, in, limits, timer, nanoTime);
      boolean anew = !gateway.equals(hello.gateway());
      gateway = hello.gateway();
      link = standing;
      log.info("the egress gateway at {} is linked", name);
      try {
        listener.linked(this, anew);
        while (!closed) {
          listener.received(this, standing.receive());
        }
      } catch (IOException e) {
        if (!closed) {
          log.warn("the link to the egress gateway at {} broke: {}", name, e.toString());
        }
      } finally {
        lostNanos = nanoTime.getAsLong();
        link = null;
        standing.close();
        listener.lost(this);
      }
      return true;
    }
  }

  private LinkMessage.Hello greet(TlsConnection connection, DataInputStream in) throws IOException {
    Deadline deadline =
        new Deadline(
            timer, nanoTime, limits.greetingMillis(), _ -> LinkedSandboxes.shut(connection));
    deadline.within(limits.greetingMillis(), "the greeting");
    try {
      connection.handshake();
      if (!(LinkCodec.read(in, LinkCodec.MAX_FIRST_FRAME) instanceof LinkMessage.Hello hello)) {
        throw new LinkCodec.MalformedFrameException("a gateway says hello first");
      }
      if (hello.oldestVersion() > LinkMessage.VERSION
          || hello.newestVersion() < LinkMessage.VERSION) {
        throw new IOException(
            "the gateway speaks versions "
                + hello.oldestVersion()
                + " to "
                + hello.newestVersion()
                + ", this control plane speaks "
                + LinkMessage.VERSION);
      }
      String proof = key.proof(hello.gateway(), hello.nonce(), controlPlane);
      Link.write(connection, new LinkMessage.Login(LinkMessage.VERSION, controlPlane, proof));
      return switch (LinkCodec.read(in, LinkCodec.MAX_FIRST_FRAME)) {
        case LinkMessage.Welcome _ -> hello;
        case LinkMessage.Farewell(String reason) ->
            throw new IOException("the gateway says: " + reason);
        case LinkMessage other ->
            throw new LinkCodec.MalformedFrameException(
                "a gateway answers a login with " + other.getClass().getSimpleName());
      };
    } finally {
      deadline.close();
    }
  }

  /// Names this life of the gateway; empty before the first link.
  String gateway() {
    return gateway;
  }

  boolean isLinked() {
    return link != null;
  }

  /// Since when there has been no link, where there is none.
  long lostNanos() {
    return lostNanos;
  }

  /// @return false where there is no link
  boolean send(LinkMessage message) {
    Link standing = link;
    if (standing == null) {
      return false;
    }
    try {
      standing.send(message);
      return true;
    } catch (IOException e) {
      log.debug("not sent to the gateway at {}: {}", name, e.toString());
      return false;
    }
  }

  /// As [#send], for who must not wait.
  void answer(LinkMessage message) {
    Link standing = link;
    if (standing != null) {
      standing.answer(message);
    }
  }

  void close() {
    closed = true;
    Link standing = link;
    if (standing != null) {
      standing.close();
    }
    Thread running = runner;
    if (running != null) {
      running.interrupt();
    }
  }

  @Override
  public String toString() {
    return name;
  }
}
