package dev.foredeck.core.sandbox;

import dev.foredeck.core.Id;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Patience;
import dev.foredeck.core.Policies;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.egress.EgressGateway;
import dev.foredeck.core.gate.Agents;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallStarter;
import dev.foredeck.core.pool.WarmPools;
import dev.foredeck.core.store.Store;
import dev.foredeck.core.store.Store.StoreUnavailableException;
import java.time.Clock;
import java.time.Instant;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Makes sandboxes real: one [SandboxLoop] for each sandbox that is neither gone nor failed. The
/// loop that does the work is the one that recovers it: [#adopt] starts a loop for each live row,
/// and each goes on from its phase.
///
/// Threading: every method from any thread. Invariant: at most one loop per sandbox in this
/// process.
public final class Launcher implements CallStarter, AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(Launcher.class);

  /// What loops share.
  ///
  /// @param callsInHand of the gate, which ends them itself
  /// @param began when this control plane began: what was in work before it was another one's
  record Surroundings(
      Store store,
      Driver driver,
      EgressGateway egress,
      Agents agents,
      Policies policies,
      Clock clock,
      Limits limits,
      Patience patience,
      WarmPools pools,
      Set<Id> callsInHand,
      Instant began) {}

  private final Surroundings around;
  private final String owner;
  private final Map<Id, SandboxLoop> loops = new ConcurrentHashMap<>();
  private volatile boolean closed;

  public Launcher(
      Store store,
      Driver driver,
      EgressGateway egress,
      Agents agents,
      Policies policies,
      WarmPools pools,
      String owner,
      Clock clock,
      Limits limits) {
    this(store, driver, egress, agents, policies, pools, owner, clock, limits, Patience.DEFAULT);
  }

  public Launcher(
      Store store,
      Driver driver,
      EgressGateway egress,
      Agents agents,
      Policies policies,
      WarmPools pools,
      String owner,
      Clock clock,
      Limits limits,
      Patience patience) {
    this.around =
        new Surroundings(
            store,
            driver,
            egress,
            agents,
            policies,
            clock,
            limits,
            patience,
            pools,
            ConcurrentHashMap.newKeySet(),
            clock.instant());
    this.owner = owner;
  }

  /// Takes up every live sandbox of this owner that has no loop: at start, and again by the
  /// [Reaper] in case one was missed.
  ///
  /// @return how many were taken up
  public int adopt() {
    int adopted = 0;
    for (Sandbox sandbox : around.store().liveSandboxes(owner)) {
      if (begin(new SandboxLoop(around, sandbox.id()))) {
        adopted++;
      }
    }
    return adopted;
  }

  /// Whether a loop looks after this sandbox.
  public boolean tends(Id sandbox) {
    return loops.containsKey(sandbox);
  }

  @Override
  public void sandboxMade(Sandbox sandbox, Optional<Call> call) {
    begin(new SandboxLoop(around, sandbox, call));
  }

  @Override
  public void callAdded(Sandbox sandbox, Call call) {
    SandboxLoop loop = loops.get(sandbox.id());
    if (loop == null || !loop.run(sandbox, call)) {
      sandboxChanged(sandbox.id());
    }
  }

  @Override
  public void callBegins(Id call) {
    around.callsInHand().add(call);
  }

  @Override
  public void callDone(Id call) {
    around.callsInHand().remove(call);
  }

  @Override
  public void sandboxChanged(Id sandbox) {
    SandboxLoop loop = loops.get(sandbox);
    if (loop != null) {
      loop.wake();
      return;
    }
    try {
      if (around.store().sandbox(sandbox).filter(s -> s.owner().equals(owner)).isPresent()) {
        begin(new SandboxLoop(around, sandbox));
      }
    } catch (StoreUnavailableException e) {
      LOG.warn("sandbox {}: taken up when the database answers again: {}", sandbox, e.getMessage());
    }
  }

  private boolean begin(SandboxLoop loop) {
    Id sandbox = loop.sandbox();
    if (closed) {
      return false;
    }
    if (loops.putIfAbsent(sandbox, loop) != null) {
      return false;
    }
    if (closed) {
      loop.close();
    }
    Thread.ofVirtual()
        .name("sandbox-" + sandbox)
        .start(() -> {
          try {
            loop.run();
          } finally {
            loops.remove(sandbox, loop);
          }
        });
    return true;
  }

  /// Lets go of every sandbox, leaving all of them as they are; returns when no loop works any
  /// more.
  @Override
  public void close() {
    closed = true;
    loops.values().forEach(SandboxLoop::close);
    // All of them let go at the same time: together they have the time of one.
    long end = System.nanoTime() + around.patience().stop().toNanos() * 2;
    loops.values().forEach(loop -> loop.awaitEnd(end - System.nanoTime()));
  }
}
