package dev.foredeck.egress;

import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway.EgressRules;
import dev.foredeck.core.egress.EgressGateway.FlowRecorder;
import java.io.IOException;
import java.nio.channels.ClosedChannelException;
import java.time.Duration;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// One sandbox's open connections, and what they share: rules, rate, totals. Bound for good to one
/// set of rules; opening again makes another. How the connections come is a listener's business.
///
/// Invariant: a connection is in `connections` from before its thread starts until its flow is in
/// the outbox, so that whoever waits for the set to empty has seen every flow.
final class SandboxEgress {
  private static final Logger log = LoggerFactory.getLogger(SandboxEgress.class);

  private final Id sandbox;
  private final EgressRules rules;
  private final FlowOutbox outbox;
  private final Surroundings around;
  private final AtomicLong totalBytes;
  private final Throttle bytesPerSecond;
  private final Throttle connectionsPerSecond;
  private final Semaphore lookups;
  private final Set<Connection> connections = ConcurrentHashMap.newKeySet();
  private volatile boolean stopped;
  private volatile String stoppedWhy = "";

  /// @param totalBytes moved so far; outlives this where the sandbox is opened again
  SandboxEgress(
      Id sandbox,
      EgressRules rules,
      FlowRecorder flows,
      Surroundings around,
      AtomicLong totalBytes) {
    this.sandbox = sandbox;
    this.rules = rules;
    this.outbox = new FlowOutbox(sandbox.value(), flows, around.limits().pendingFlows());
    this.around = around;
    this.totalBytes = totalBytes;
    this.bytesPerSecond = new Throttle(around.limits().bytesPerSecond(), around.nanoTime());
    this.connectionsPerSecond =
        new Throttle(around.limits().connectionsPerSecond(), around.nanoTime());
    this.lookups = new Semaphore(around.limits().lookups());
  }

  EgressRules rules() {
    return rules;
  }

  FlowOutbox outbox() {
    return outbox;
  }

  Surroundings around() {
    return around;
  }

  Semaphore lookups() {
    return lookups;
  }

  AtomicLong totalBytes() {
    return totalBytes;
  }

  /// Waits until the sandbox may have one more connection by its rate.
  ///
  /// @return false where this is stopped
  boolean awaitTurn() throws InterruptedException {
    return connectionsPerSecond.take(1);
  }

  /// How many connections are open.
  int open() {
    return connections.size();
  }

  /// Gives the connection a thread of its own, or refuses it.
  ///
  /// @param client owned by this from here on where it is served
  /// @return where it is refused, what to tell it; the flow is recorded
  Optional<byte[]> serve(ByteConnection client) {
    if (connections.size() >= around.limits().connections()) {
      return Optional.of(
          refuse(
              Refusal.limit(
                  503,
                  "this sandbox has "
                      + around.limits().connections()
                      + " connections open, which is its limit")));
    }
    Connection connection = new Connection(this, client);
    connections.add(connection);
    Thread.ofVirtual().name("egress-" + sandbox).start(connection);
    if (stopped) {
      connection.abort(stoppedWhy);
    }
    return Optional.empty();
  }

  private byte[] refuse(Refusal refusal) {
    FlowTally tally = new FlowTally(around.nanoTime());
    tally.refuse(refusal);
    tally.take().ifPresent(outbox::add);
    return Answers.refusal(refusal, refusal.rule(), "");
  }

  /// Counts bytes that are about to move, and waits until the sandbox's rate allows them.
  void spend(FlowTally tally, long bytes) throws Refusal, IOException {
    EgressLimits limits = around.limits();
    if (tally.moved() + bytes > limits.bytesPerFlow()) {
      throw Refusal.limit(403, "the flow reached its limit of " + limits.bytesPerFlow() + " bytes");
    }
    if (totalBytes.addAndGet(bytes) > limits.bytesPerSandbox()) {
      totalBytes.addAndGet(-bytes);
      throw Refusal.limit(
          403, "the sandbox reached its limit of " + limits.bytesPerSandbox() + " bytes");
    }
    try {
      if (!bytesPerSecond.take(bytes)) {
        throw new ClosedChannelException();
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new ClosedChannelException();
    }
  }

  void ended(Connection connection) {
    connections.remove(connection);
  }

  /// Takes no more and ends the connections. Does not wait.
  void stop(String why) {
    stoppedWhy = why;
    stopped = true;
    bytesPerSecond.close();
    connectionsPerSecond.close();
    for (Connection connection : connections) {
      connection.abort(why);
    }
  }

  /// Waits until every connection has ended and every flow is recorded.
  void drain(long millis) {
    try {
      long until = around.nanoTime().getAsLong() + Duration.ofMillis(millis).toNanos();
      for (Connection connection : connections) {
        long left = until - around.nanoTime().getAsLong();
        if (!connection.awaitEnd(Math.max(0, left))) {
          log.warn("{}: an egress connection did not end in time", sandbox);
          return;
        }
      }
      if (!outbox.drain(millis)) {
        log.warn("{}: flows were not recorded in time", sandbox);
      }
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    }
  }
}
