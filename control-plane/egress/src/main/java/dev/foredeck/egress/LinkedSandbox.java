package dev.foredeck.egress;

import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.egress.EgressGateway.Verdict;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HexFormat;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// One sandbox in a gateway of its own process: who may come in as it, which link answers for it,
/// and the flows that its control plane has not yet recorded.
///
/// Threading: any; the lock guards all fields. It is held while a flow goes into the link's queue,
/// so that flows keep their order, and never while a connection is waited for.
///
/// Invariant: a connection is let in only where there is room for its flow. What is refused for
/// want of room is counted and told once there is some.
final class LinkedSandbox {
  private static final Logger log = LoggerFactory.getLogger(LinkedSandbox.class);
  private static final long DRAIN_MILLIS = 10_000;
  private static final long NANOS_PER_MILLI = 1_000_000;
  private static final byte[] NO_CREDENTIAL = new byte[32];

  private static final class Kept {
    final long number;
    final Flow flow;
    boolean sent;

    Kept(long number, Flow flow) {
      this.number = number;
      this.flow = flow;
    }
  }

  private final Id id;
  private final Surroundings around;
  private final LinkLimits limits;
  private final AtomicLong numbers;
  private final AtomicInteger keptByAll;
  private final AtomicLong totalBytes = new AtomicLong();
  private final ReentrantLock lock = new ReentrantLock();
  private final Deque<Kept> kept = new ArrayDeque<>();
  private byte[] credentialSha256 = NO_CREDENTIAL;
  private String opening = "";
  private @Nullable SandboxEgress egress;
  private @Nullable ControlPlaneLink link;
  private long lostNanos;
  private long refusedUnrecorded;
  private int draining;
  private boolean removed;

  /// @param numbers of flows, the gateway's
  /// @param keptByAll flows that all sandboxes keep
  LinkedSandbox(
      Id id, Surroundings around, LinkLimits limits, AtomicLong numbers, AtomicInteger keptByAll) {
    this.id = id;
    this.around = around;
    this.limits = limits;
    this.numbers = numbers;
    this.keptByAll = keptByAll;
    this.lostNanos = around.nanoTime().getAsLong();
  }

  // -- What its control plane orders

  /// @return false where this was removed meanwhile: ask for another
  boolean open(ControlPlaneLink from, String newOpening, byte[] newCredentialSha256) {
    lock.lock();
    try {
      if (removed) {
        return false;
      }
      boolean goesOn =
          egress != null
              && opening.equals(newOpening)
              && MessageDigest.isEqual(credentialSha256, newCredentialSha256);
      if (!goesOn) {
        end("the sandbox's egress rules were replaced", () -> {});
        egress = new SandboxEgress(id, this::decide, this::record, around, totalBytes);
        opening = newOpening;
        credentialSha256 = newCredentialSha256.clone();
      }
      link = from;
      sendAgain(from);
      return true;
    } finally {
      lock.unlock();
    }
  }

  /// Ends what runs, then tells the link that all of it was sent.
  void close(ControlPlaneLink from) {
    lock.lock();
    try {
      if (link != from) {
        if (link != null && !link.isClosed()) {
          from.answer(new LinkMessage.Closed(id)); // It is another control plane's by now.
          return;
        }
        link = from;
        sendAgain(from);
      }
      end("the sandbox's egress was closed", () -> from.answer(new LinkMessage.Closed(id)));
    } finally {
      lock.unlock();
    }
  }

  void lost(ControlPlaneLink by) {
    lock.lock();
    try {
      if (link == by) {
        link = null;
        lostNanos = around.nanoTime().getAsLong();
      }
    } finally {
      lock.unlock();
    }
  }

  void recorded(ControlPlaneLink by, long number) {
    lock.lock();
    try {
      if (link != by) {
        return; // Late: the flows are another link's now, and told by their numbers.
      }
      while (!kept.isEmpty() && kept.getFirst().number <= number) {
        kept.removeFirst();
        keptByAll.decrementAndGet();
      }
      if (refusedUnrecorded > 0 && kept.size() < around.limits().pendingFlows()) {
        tellRefused();
      }
    } finally {
      lock.unlock();
    }
  }

  // -- What the sandbox does

  /// In constant time.
  boolean knows(byte[] presentedSha256) {
    lock.lock();
    try {
      return egress != null && MessageDigest.isEqual(credentialSha256, presentedSha256);
    } finally {
      lock.unlock();
    }
  }

  /// Serves a connection that showed the sandbox's credential, when its turn comes, or tells it why
  /// not.
  ///
  /// @param onTurn when it no longer waits
  /// @throws IOException where the sandbox was closed meanwhile
  void serve(ByteConnection connection, Runnable onTurn) throws IOException, InterruptedException {
    SandboxEgress current = current();
    if (!current.awaitTurn()) {
      throw new IOException("the sandbox's egress was closed");
    }
    onTurn.run();
    Optional<byte[]> refused;
    if (hasRoom(current)) {
      refused = current.serve(connection);
    } else {
      Refusal refusal =
          Refusal.unavailable("the record of this sandbox's flows is behind; nothing goes out");
      refused = Optional.of(Answers.refusal(refusal, refusal.rule(), ""));
    }
    if (refused.isPresent()) {
      tell(connection, refused.get());
    }
  }

  private SandboxEgress current() throws IOException {
    lock.lock();
    try {
      if (egress == null) {
        throw new IOException("the sandbox's egress is closed");
      }
      return egress;
    } finally {
      lock.unlock();
    }
  }

  private boolean hasRoom(SandboxEgress current) {
    lock.lock();
    try {
      if (kept.size() + current.open() < around.limits().pendingFlows()
          && keptByAll.get() < limits.flows()) {
        return true;
      }
      refusedUnrecorded++;
      return false;
    } finally {
      lock.unlock();
    }
  }

  private void tell(ByteConnection connection, byte[] answer) {
    Deadline deadline =
        new Deadline(
            around.timer(),
            around.nanoTime(),
            limits.penaltyMillis(),
            _ -> LinkedSandboxes.shut(connection));
    deadline.within(limits.penaltyMillis(), "reading the refusal");
    try (connection) {
      ByteBuffer bytes = ByteBuffer.wrap(answer);
      while (bytes.hasRemaining()) {
        connection.write(bytes);
      }
      connection.shutdownOutput();
      ByteBuffer dropped = ByteBuffer.allocate(1024);
      while (connection.read(dropped) >= 0) {
        dropped.clear();
      }
    } catch (IOException _) {
      log.debug("{}: a client left before it was told", id);
    } finally {
      deadline.close();
    }
  }

  private Verdict decide(String host, int port, String method, String path) {
    ControlPlaneLink asked;
    lock.lock();
    try {
      asked = link;
    } finally {
      lock.unlock();
    }
    if (asked == null || asked.isClosed()) {
      throw new RulesUnavailableException("no control plane is linked to this gateway");
    }
    return asked.ask(id, host, port, method, path);
  }

  // -- Flows

  private void record(Flow flow) {
    lock.lock();
    try {
      Kept ended = new Kept(numbers.incrementAndGet(), flow);
      kept.addLast(ended);
      keptByAll.incrementAndGet();
      if (link != null) {
        send(link, ended);
      }
    } finally {
      lock.unlock();
    }
  }

  private void sendAgain(ControlPlaneLink to) {
    for (Kept ended : kept) {
      if (!send(to, ended)) {
        return;
      }
    }
  }

  private boolean send(ControlPlaneLink to, Kept ended) {
    boolean repeated = ended.sent;
    ended.sent = true;
    try {
      to.send(new LinkMessage.Ended(id, ended.number, repeated, ended.flow));
      return true;
    } catch (IOException e) {
      log.debug("{}: a flow waits for the next link: {}", id, e.toString());
      return false;
    }
  }

  /// One flow for all connections that could not have one of their own.
  private void tellRefused() {
    FlowTally tally = new FlowTally(around.nanoTime());
    tally.refuse(
        Refusal.unavailable(
            refusedUnrecorded
                + " connections were refused while the record of this sandbox's flows was behind"));
    refusedUnrecorded = 0;
    tally.take().ifPresent(this::record);
  }

  // -- Ends

  /// Under the lock.
  ///
  /// @param then once every connection has ended and its flow was sent
  private void end(String why, Runnable then) {
    SandboxEgress former = egress;
    egress = null;
    credentialSha256 = NO_CREDENTIAL;
    if (former == null) {
      then.run();
      return;
    }
    former.stop(why);
    draining++;
    Thread.ofVirtual()
        .name("egress-drain-" + id)
        .start(() -> {
          former.drain(DRAIN_MILLIS);
          lock.lock();
          try {
            draining--;
          } finally {
            lock.unlock();
          }
          then.run();
        });
  }

  /// Ends what has been without a control plane for too long, and forgets what nobody claimed.
  ///
  /// @return whether nothing of it is left, so that it was removed for good
  boolean sweep() {
    lock.lock();
    try {
      if (link == null) {
        long lostMillis = (around.nanoTime().getAsLong() - lostNanos) / NANOS_PER_MILLI;
        if (egress != null && lostMillis > limits.graceMillis()) {
          end("no control plane looked after the sandbox any more", () -> {});
        }
        if (lostMillis > limits.keepMillis() && !(kept.isEmpty() && refusedUnrecorded == 0)) {
          log.error("{}: {} flows are lost: no control plane took them", id, kept.size());
          keptByAll.addAndGet(-kept.size());
          kept.clear();
          refusedUnrecorded = 0;
        }
      }
      removed = egress == null && kept.isEmpty() && refusedUnrecorded == 0 && draining == 0;
      return removed;
    } finally {
      lock.unlock();
    }
  }

  /// The gateway stops.
  void stop(String why) {
    lock.lock();
    try {
      end(why, () -> {});
    } finally {
      lock.unlock();
    }
  }

  /// Whether every connection has ended and every flow is recorded.
  boolean isSettled() {
    lock.lock();
    try {
      return egress == null && draining == 0 && kept.isEmpty();
    } finally {
      lock.unlock();
    }
  }

  static byte[] hash(String hexadecimal) {
    byte[] bytes = HexFormat.of().parseHex(hexadecimal);
    if (bytes.length != NO_CREDENTIAL.length) {
      throw new IllegalArgumentException("a SHA-256 has 32 bytes");
    }
    return bytes;
  }
}
