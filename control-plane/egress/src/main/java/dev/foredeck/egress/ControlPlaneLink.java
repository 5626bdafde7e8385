package dev.foredeck.egress;

import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway.Verdict;
import java.io.IOException;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// The gateway's end of a link: brings a control plane's orders to the sandboxes, and the rules'
/// questions to the control plane.
///
/// Threading: [#run] on one thread, all else from any.
final class ControlPlaneLink {
  private static final Logger log = LoggerFactory.getLogger(ControlPlaneLink.class);

  private static final class Pending {
    final CountDownLatch done = new CountDownLatch(1);
    volatile @Nullable Verdict verdict;
  }

  private final String controlPlane;
  private final Link link;
  private final LinkedSandboxes sandboxes;
  private final LinkLimits limits;
  private final AtomicLong numbers = new AtomicLong();
  private final Map<Long, Pending> questions = new ConcurrentHashMap<>();

  ControlPlaneLink(String controlPlane, Link link, LinkedSandboxes sandboxes, LinkLimits limits) {
    this.controlPlane = controlPlane;
    this.link = link;
    this.sandboxes = sandboxes;
    this.limits = limits;
  }

  /// Until the link ends.
  void run() {
    log.info("control plane {} is linked", controlPlane);
    try {
      boolean goesOn;
      do {
        goesOn = take(link.receive());
      } while (goesOn);
    } catch (IOException e) {
      log.info("the link of control plane {} broke: {}", controlPlane, e.toString());
    } finally {
      link.close();
      sandboxes.lost(this);
      questions.values().forEach(pending -> pending.done.countDown());
    }
  }

  /// @return whether the link goes on
  private boolean take(LinkMessage message) throws IOException {
    switch (message) {
      case LinkMessage.Open open -> sandboxes.open(this, open);
      case LinkMessage.Close close -> sandboxes.close(this, close.sandbox());
      case LinkMessage.Answer(long number, Verdict verdict) -> {
        Pending pending = questions.remove(number);
        if (pending != null) {
          pending.verdict = verdict;
          pending.done.countDown();
        }
      }
      case LinkMessage.Recorded recorded ->
          sandboxes.recorded(this, recorded.sandbox(), recorded.number());
      case LinkMessage.Ping _ -> log.trace("control plane {} is there", controlPlane);
      case LinkMessage.Farewell(String reason) -> {
        log.info("control plane {} leaves: {}", controlPlane, reason);
        return false;
      }
      case LinkMessage.Hello _,
          LinkMessage.Login _,
          LinkMessage.Welcome _,
          LinkMessage.Opened _,
          LinkMessage.NotOpened _,
          LinkMessage.Closed _,
          LinkMessage.Question _,
          LinkMessage.Ended _ ->
          throw new LinkCodec.MalformedFrameException(
              message.getClass().getSimpleName() + " is not for a gateway");
    }
    return true;
  }

  /// Asks the rules where they are.
  ///
  /// @throws RulesUnavailableException where no answer comes in time
  Verdict ask(Id sandbox, String host, int port, String method, String path) {
    long number = numbers.incrementAndGet();
    Pending pending = new Pending();
    questions.put(number, pending);
    try {
      link.send(new LinkMessage.Question(number, sandbox, host, port, method, path));
      if (!pending.done.await(limits.answerMillis(), TimeUnit.MILLISECONDS)) {
        throw new RulesUnavailableException(
            "the control plane did not decide within " + limits.answerMillis() + " ms");
      }
      Verdict verdict = pending.verdict;
      if (verdict == null) {
        throw new RulesUnavailableException("the link to the control plane broke");
      }
      return verdict;
    } catch (IOException _) {
      throw new RulesUnavailableException("the link to the control plane broke");
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
      throw new RulesUnavailableException("the connection was ended before it was decided");
    } finally {
      questions.remove(number);
    }
  }

  void send(LinkMessage message) throws IOException {
    link.send(message);
  }

  void answer(LinkMessage message) {
    link.answer(message);
  }

  boolean isClosed() {
    return link.isClosed();
  }

  void close() {
    link.close();
  }

  @Override
  public String toString() {
    return controlPlane;
  }
}
