package dev.foredeck.egress;

import dev.foredeck.core.Id;
import java.io.IOException;
import java.nio.channels.Channel;
import java.util.Iterator;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// All sandboxes of a gateway of its own process. A sandbox belongs to the link that opened it
/// last. Thread-safe.
final class LinkedSandboxes {
  private static final Logger log = LoggerFactory.getLogger(LinkedSandboxes.class);

  private final Surroundings around;
  private final LinkLimits limits;
  private final AtomicLong numbers = new AtomicLong();
  private final AtomicInteger kept = new AtomicInteger();
  private final Map<Id, LinkedSandbox> sandboxes = new ConcurrentHashMap<>();
  private volatile boolean stopping;

  LinkedSandboxes(Surroundings around, LinkLimits limits) {
    this.around = around;
    this.limits = limits;
  }

  void open(ControlPlaneLink from, LinkMessage.Open order) {
    byte[] credentialSha256;
    try {
      credentialSha256 = LinkedSandbox.hash(order.credentialSha256());
    } catch (IllegalArgumentException _) {
      refuse(from, order, "the hash of the credential is none");
      return;
    }
    if (stopping) {
      refuse(from, order, "the gateway is stopping");
      return;
    }
    if (sandboxes.size() >= limits.sandboxes() && !sandboxes.containsKey(order.sandbox())) {
      refuse(from, order, "the gateway knows " + limits.sandboxes() + " sandboxes, its limit");
      return;
    }
    LinkedSandbox sandbox;
    do {
      sandbox =
          sandboxes.computeIfAbsent(
              order.sandbox(), id -> new LinkedSandbox(id, around, limits, numbers, kept));
    } while (!sandbox.open(from, order.opening(), credentialSha256));
    from.answer(new LinkMessage.Opened(order.sandbox(), order.opening()));
  }

  private static void refuse(ControlPlaneLink from, LinkMessage.Open order, String reason) {
    from.answer(new LinkMessage.NotOpened(order.sandbox(), order.opening(), reason));
  }

  void close(ControlPlaneLink from, Id id) {
    LinkedSandbox sandbox = sandboxes.get(id);
    if (sandbox == null) {
      from.answer(new LinkMessage.Closed(id));
      return;
    }
    sandbox.close(from);
  }

  void recorded(ControlPlaneLink by, Id id, long number) {
    LinkedSandbox sandbox = sandboxes.get(id);
    if (sandbox != null) {
      sandbox.recorded(by, number);
    }
  }

  void lost(ControlPlaneLink link) {
    sandboxes.values().forEach(sandbox -> sandbox.lost(link));
  }

  /// The sandbox that a bridge comes from.
  ///
  /// @throws IOException where there is none, or not with this credential: which of both is not
  ///   said
  LinkedSandbox find(Preamble preamble) throws IOException {
    LinkedSandbox sandbox = sandboxes.get(preamble.sandbox());
    if (sandbox == null || !sandbox.knows(preamble.credentialSha256())) {
      throw new IOException("the sandbox or its credential is not known");
    }
    return sandbox;
  }

  /// To be called every now and then.
  void sweep() {
    for (Iterator<LinkedSandbox> i = sandboxes.values().iterator(); i.hasNext(); ) {
      if (i.next().sweep()) {
        i.remove();
      }
    }
  }

  /// Opens no more and ends all connections. Does not wait.
  void stop() {
    stopping = true;
    sandboxes.values().forEach(sandbox -> sandbox.stop("the egress gateway was closed"));
  }

  boolean isSettled() {
    return sandboxes.values().stream().allMatch(LinkedSandbox::isSettled);
  }

  /// Flows that no control plane has recorded.
  int kept() {
    return kept.get();
  }

  static void shut(Channel channel) {
    try {
      channel.close();
    } catch (IOException e) {
      log.debug("a connection could not be closed: {}", e.toString());
    }
  }
}
