package dev.foredeck.egress;

import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway;
import dev.foredeck.core.egress.EgressPath;
import dev.foredeck.protocol.CertificatePin;
import java.io.IOException;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.LongSupplier;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Egress gateways of their own process, seen from a control plane: a link to each of them, over
/// which they ask the rules and tell of flows.
///
/// The rules stay here. A gateway without a link denies; when it is linked again it is told of all
/// sandboxes that are open. A flow counts as taken when its recorder says that it is durable, and
/// until then the gateway keeps it. What a gateway was asked about and cannot tell any more,
/// because it died, is recorded as that.
public final class RemoteEgressGateway implements EgressGateway {
  private static final Logger log = LoggerFactory.getLogger(RemoteEgressGateway.class);

  /// So that the flows that all of them may keep fit into one recorder: see [EgressLimits].
  public static final int MOST_GATEWAYS = 4;

  private static final int OPENING_BYTES = 8;

  private final LinkLimits limits;
  private final LongSupplier nanoTime;
  private final ScheduledThreadPoolExecutor timer;
  private final List<GatewayLink> links = new ArrayList<>();
  private final Map<Id, RemoteSandbox> open = new ConcurrentHashMap<>();
  private final Map<Id, RemoteSandbox> closing = new ConcurrentHashMap<>();
  private final Map<GatewayLink, String> lives = new ConcurrentHashMap<>();
  private final AtomicLong openings = new AtomicLong();
  private final String prefix;
  private volatile boolean closed;

  /// Begins to link at once, and goes on for as long as it takes.
  ///
  /// @param gateways by a name for the log: the ways to their control ports
  /// @param pin of the deployment's certificate
  /// @param controlPlane this replica's name, for the gateway's log
  /// @param nanoTime monotonic, as `System.nanoTime`
  public RemoteEgressGateway(
      Map<String, Dialer> gateways,
      CertificatePin pin,
      LinkKey key,
      String controlPlane,
      LinkLimits limits,
      LongSupplier nanoTime,
      SecureRandom random) {
    if (gateways.isEmpty() || gateways.size() > MOST_GATEWAYS) {
      throw new IllegalArgumentException("there must be 1 to " + MOST_GATEWAYS + " gateways");
    }
    this.limits = limits;
    this.nanoTime = nanoTime;
    this.timer = Surroundings.timer("gateway-links");
    byte[] prefixBytes = new byte[OPENING_BYTES];
    random.nextBytes(prefixBytes);
    this.prefix = HexFormat.of().formatHex(prefixBytes) + "-";
    gateways.forEach((name, dialer) ->
        links.add(
            new GatewayLink(
                name, dialer, pin, key, controlPlane, limits, timer, nanoTime, new Incoming())));
    links.forEach(GatewayLink::start);
  }

  @Override
  public void open(Id sandbox, EgressPath path, EgressRules rules, FlowRecorder flows)
      throws IOException {
    String credentialSha256 =
        switch (path) {
          case EgressPath.Credential(String sha256) -> sha256;
          case EgressPath.UnixSocket _ ->
              throw new IOException("a gateway of its own process listens on no unix socket");
        };
    if (closed) {
      throw new IOException("the egress gateway is closed");
    }
    String opening = prefix + openings.incrementAndGet();
    RemoteSandbox opened = new RemoteSandbox(sandbox, opening, credentialSha256, rules, flows);
    open.compute(
        sandbox,
        (_, former) -> {
          if (former != null) {
            opened.continues(former);
          }
          return opened;
        });
    try {
      for (GatewayLink link : links) {
        boolean _ = link.send(opened.order());
      }
      opened.awaitLetIn(links, limits.openMillis());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      shutOut(sandbox, opened);
      throw new IOException("interrupted while the egress gateway was asked", e);
    } catch (IOException e) {
      shutOut(sandbox, opened);
      throw e;
    }
  }

  /// After an opening that failed: no gateway may go on as if it had not.
  private void shutOut(Id sandbox, RemoteSandbox failed) {
    if (open.remove(sandbox, failed)) {
      links.forEach(link -> link.answer(new LinkMessage.Close(sandbox)));
      failed.settleAll();
    }
  }

  @Override
  public void close(Id sandbox) {
    RemoteSandbox former = open.remove(sandbox);
    if (former != null) {
      close(sandbox, former);
    }
  }

  @Override
  public void close(Id sandbox, FlowRecorder flows) {
    RemoteSandbox former = open.remove(sandbox);
    if (former == null) {
      former =
          new RemoteSandbox(
              sandbox,
              "",
              "",
              (host, port, method, path) -> new Verdict(false, "closed", "the sandbox ends"),
              flows);
    }
    close(sandbox, former);
  }

  private void close(Id sandbox, RemoteSandbox former) {
    closing.put(sandbox, former);
    try {
      for (GatewayLink link : links) {
        boolean _ = link.send(new LinkMessage.Close(sandbox));
      }
      if (!former.awaitLetOut(links, this::mayAnswer, limits.closeMillis())) {
        log.warn("{}: not every egress gateway said that the sandbox is out", sandbox);
      }
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    } finally {
      closing.remove(sandbox, former);
      former.settleAll();
    }
  }

  /// A gateway that has been away for longer than it is waited for is not waited for again.
  private boolean mayAnswer(GatewayLink link) {
    long lostMillis = TimeUnit.NANOSECONDS.toMillis(nanoTime.getAsLong() - link.lostNanos());
    return link.isLinked() || lostMillis < limits.closeMillis();
  }

  @Override
  public void close() {
    closed = true;
    List.copyOf(open.keySet()).forEach(this::close);
    links.forEach(link -> link.answer(new LinkMessage.Farewell("the control plane stops")));
    links.forEach(GatewayLink::close);
    timer.shutdownNow();
  }

  private @Nullable RemoteSandbox known(Id sandbox) {
    RemoteSandbox found = open.get(sandbox);
    return found != null ? found : closing.get(sandbox);
  }

  /// What the links bring.
  private final class Incoming implements GatewayLink.Listener {
    @Override
    public void linked(GatewayLink link, boolean anew) {
      String former = lives.put(link, link.gateway());
      if (anew && former != null) {
        log.warn("the egress gateway at {} restarted; its sandboxes are opened again", link);
        open.values().forEach(sandbox -> sandbox.settle(former));
        closing.values().forEach(sandbox -> sandbox.settle(former));
      }
      // Not by this thread: it must go on reading.
      Thread.ofVirtual()
          .name("gateway-reopen-" + link)
          .start(() -> {
            closing.keySet().forEach(sandbox -> send(link, new LinkMessage.Close(sandbox)));
            open.values().forEach(sandbox -> send(link, sandbox.order()));
          });
    }

    private static void send(GatewayLink link, LinkMessage message) {
      boolean _ = link.send(message);
    }

    @Override
    public void received(GatewayLink link, LinkMessage message) throws IOException {
      switch (message) {
        case LinkMessage.Question asked -> link.answer(answer(link, asked));
        case LinkMessage.Ended ended -> ended(link, ended);
        case LinkMessage.Opened(Id id, String opening) -> {
          RemoteSandbox sandbox = known(id);
          if (sandbox != null) {
            sandbox.letIn(link, opening);
          }
        }
        case LinkMessage.NotOpened(Id id, String opening, String reason) -> {
          log.warn("{}: the egress gateway at {} refuses: {}", id, link, reason);
          RemoteSandbox sandbox = known(id);
          if (sandbox != null) {
            sandbox.refused(opening, reason);
          }
        }
        case LinkMessage.Closed(Id id) -> {
          RemoteSandbox sandbox = closing.get(id);
          if (sandbox != null) {
            sandbox.letOut(link);
          }
        }
        case LinkMessage.Farewell(String reason) ->
            throw new IOException("the gateway leaves: " + reason);
        case LinkMessage.Ping _ -> log.trace("the gateway at {} is there", link);
        case LinkMessage.Hello _,
            LinkMessage.Login _,
            LinkMessage.Welcome _,
            LinkMessage.Open _,
            LinkMessage.Close _,
            LinkMessage.Answer _,
            LinkMessage.Recorded _ ->
            throw new LinkCodec.MalformedFrameException(
                message.getClass().getSimpleName() + " is not for a control plane");
      }
    }

    private LinkMessage answer(GatewayLink link, LinkMessage.Question asked) throws IOException {
      RemoteSandbox sandbox = open.get(asked.sandbox());
      if (sandbox == null) {
        return new LinkMessage.Answer(
            asked.number(), new Verdict(false, "closed", "the sandbox's egress is closed"));
      }
      return new LinkMessage.Answer(asked.number(), sandbox.decide(link.gateway(), asked));
    }

    private void ended(GatewayLink link, LinkMessage.Ended ended) {
      RemoteSandbox sandbox = known(ended.sandbox());
      if (sandbox == null) {
        log.warn("{}: a flow of a sandbox that is not open here", ended.sandbox());
        return;
      }
      String gateway = link.gateway();
      sandbox.ended(
          gateway,
          ended,
          number -> {
            if (link.gateway().equals(gateway)) {
              link.answer(new LinkMessage.Recorded(ended.sandbox(), number));
            }
          });
    }

    @Override
    public void lost(GatewayLink link) {
      open.values().forEach(sandbox -> sandbox.lost(link));
      closing.values().forEach(sandbox -> sandbox.lost(link));
    }
  }
}
