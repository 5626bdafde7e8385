package dev.foredeck.core.pool;

import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Operation;
import dev.foredeck.core.Patience;
import dev.foredeck.core.Policies;
import dev.foredeck.core.Problem;
import dev.foredeck.core.ProblemException;
import dev.foredeck.core.Role;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.Driver.AgentConnection;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.core.gate.Agents;
import dev.foredeck.core.sandbox.Placement;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
import dev.foredeck.core.store.Store;
import dev.foredeck.core.store.Store.StoreUnavailableException;
import dev.foredeck.policy.Policy;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Keeps sandboxes launched before anybody asks for them. One loop compares the rows with what
/// there should be and sets one thread to work on each sandbox that is to be launched or destroyed;
/// the same loop takes up what an earlier control plane left.
///
/// Threading: every method from any thread; `lock` guards what is in memory, and is not held over
/// commits or verbs of the driver. Invariants: a row is committed before its sandbox is launched,
/// and goes after it is destroyed. What is in memory (`free`) is only a hint of what may be
/// claimed: the commit that removes the row decides.
public final class WarmPools implements Pools, AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(WarmPools.class);
  private static final Set<WarmSandbox.State> UNCLAIMED =
      Set.of(WarmSandbox.State.WARMING, WarmSandbox.State.WARM, WarmSandbox.State.RETIRING);

  /// What somebody who needs a sandbox got.
  public sealed interface Claim {
    /// One to be claimed by a commit that takes it; [WarmPools#settle] it in any case.
    record Warm(WarmSandbox sandbox) implements Claim {}

    /// None.
    ///
    /// @param reason for the sandbox's log; empty where there are no pools at all
    record Cold(String reason) implements Claim {}
  }

  /// What a thread is at work on.
  private enum Work {
    LAUNCH,
    RETIRE
  }

  private record InWork(Work work, Optional<Pool> pool) {}

  private static final class Pool {
    private final PoolKey key;
    private final String policy;
    private final PoolSize size;
    private final Deque<WarmSandbox> free = new ArrayDeque<>();
    private Demand demand;
    private int failures;
    private Instant notBefore = Instant.MIN;
    private Optional<Failure> lastFailure = Optional.empty();
    private Tally tally = Tally.NOTHING;

    Pool(PoolKey key, String policy, PoolSize size, Demand demand) {
      this.key = key;
      this.policy = policy;
      this.size = size;
      this.demand = demand;
    }
  }

  private final Store store;
  private final Driver driver;
  private final Agents agents;
  private final Policies policies;
  private final String owner;
  private final Clock clock;
  private final Ids ids;
  private final Limits limits;
  private final Patience patience;
  private final PoolPace pace;
  private final Launches launches;
  private final Semaphore woken = new Semaphore(0);
  private final CountDownLatch closing = new CountDownLatch(1);

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final Map<PoolKey, Pool> pools = new LinkedHashMap<>();
  private final Map<Id, InWork> inWork = new HashMap<>();
  // Handed to somebody whose commit is not decided yet.
  private final Set<Id> offered = new HashSet<>();
  private Instant fullUntil = Instant.MIN;
  private boolean draining;

  /// @param settings one for each pool; none: every sandbox is launched when it is asked for
  /// @throws IllegalArgumentException when a setting asks for what no request would get; the
  ///   message says which and why
  public WarmPools(
      Store store,
      Driver driver,
      Agents agents,
      Policies policies,
      List<PoolSetting> settings,
      String owner,
      Clock clock,
      Ids ids,
      Limits limits,
      Patience patience,
      PoolPace pace) {
    this.store = store;
    this.driver = driver;
    this.agents = agents;
    this.policies = policies;
    this.owner = owner;
    this.clock = clock;
    this.ids = ids;
    this.limits = limits;
    this.patience = patience;
    this.pace = pace;
    this.launches = new Launches(limits.launches());
    settings.forEach(this::add);
  }

  private void add(PoolSetting setting) {
    String template = setting.template().orElse(driver.templates().getFirst());
    if (!driver.templates().contains(template)) {
      throw new IllegalArgumentException(
          "there is no template '"
              + template
              + "'; there are: "
              + String.join(", ", driver.templates()));
    }
    String name = setting.policy().orElse(Policies.DEFAULT);
    Policy policy =
        policies
            .named(name)
            .orElseThrow(() ->
                new IllegalArgumentException(
                    "there is no policy '"
                        + name
                        + "'; there are: "
                        + String.join(", ", policies.names())));
    Placement.Decided placement = Placement.decide(setting.request(), policy, limits);
    if (!placement.violations().isEmpty()) {
      throw new IllegalArgumentException(placement.violations().getFirst().message());
    }
    PoolKey key = new PoolKey(template, placement.resources(), policy.boundary());
    Pool pool =
        new Pool(
            key, policy.reference(), setting.size(), Demand.none(clock.instant(), pace.halfLife()));
    if (pools.putIfAbsent(key, pool) != null) {
      throw new IllegalArgumentException(
          "two pools are the same: template "
              + template
              + " with equal resources and what policy "
              + name
              + " compiles to");
    }
  }

  /// The places for launches, which warm and other sandboxes share.
  public Launches launches() {
    return launches;
  }

  /// Begins to look after the pools: takes up what is there, fills, replaces.
  public void start() {
    Thread.ofVirtual().name("pools").start(this::run);
    Thread.ofVirtual().name("pools-watch").start(this::watch);
  }

  // Claiming.

  /// Offers a warm sandbox of this key to one caller, who must [#settle] it.
  public Claim claim(PoolKey key) {
    WarmSandbox found = null;
    String reason = "";
    lock.lock();
    try {
      Pool pool = pools.get(key);
      if (pool == null) {
        return new Claim.Cold(
            pools.isEmpty()
                ? ""
                : "no pool for template " + key.template() + " with these resources and policy");
      }
      Instant now = clock.instant();
      pool.demand = pool.demand.claimed(now);
      while (found == null && !draining && !pool.free.isEmpty()) {
        WarmSandbox oldest = pool.free.removeFirst();
        // One that the backend would end before its time to live is over is the loop's to retire.
        if (!now.plus(lifetime(key)).isAfter(oldest.expiresAt())) {
          found = oldest;
          offered.add(oldest.id());
        }
      }
      pool.tally = pool.tally.claimed(found != null);
      reason = "the pool of " + key.name() + " is " + (draining ? "being drained" : "empty");
    } finally {
      lock.unlock();
    }
    wake();
    if (found == null) {
      return new Claim.Cold(reason);
    }
    agents.markUntouched(found.id());
    return new Claim.Warm(found);
  }

  /// The commit that was to claim it is decided, or its outcome unknown: the row says whether it
  /// may be offered again.
  public void settle(Claim.Warm offer) {
    lock.lock();
    try {
      offered.remove(offer.sandbox().id());
    } finally {
      lock.unlock();
    }
    wake();
  }

  /// The longest that a sandbox of this key may be asked to live.
  private Duration lifetime(PoolKey key) {
    return key.boundary().lifetime().orElse(limits.maxTtl());
  }

  /// Gives up one warm sandbox for one that somebody waits for, where the backend is full.
  ///
  /// @return whether there is a place now that there was not
  public boolean makeRoom() throws InterruptedException {
    long end = System.nanoTime() + patience.destroy().toNanos();
    while (true) {
      WarmSandbox victim;
      lock.lock();
      try {
        fullUntil = clock.instant().plus(pace.full());
        Optional<Pool> largest =
            pools.values().stream()
                .filter(pool -> !pool.free.isEmpty())
                .max(java.util.Comparator.comparingInt(pool -> pool.free.size()));
        if (largest.isEmpty()) {
          long left = end - System.nanoTime();
          if (inWork.isEmpty() || left <= 0) {
            return false;
          }
          // One that is being launched can be given up soon.
          long _ = changed.awaitNanos(left);
          continue;
        }
        victim = largest.get().free.removeFirst();
        inWork.put(victim.id(), new InWork(Work.RETIRE, Optional.empty()));
      } finally {
        lock.unlock();
      }
      LOG.info("sandbox {}: given up: the backend is full", victim.id());
      boolean gone;
      try {
        gone = retire(victim);
      } finally {
        done(victim.id());
      }
      if (gone) {
        return true;
      }
    }
  }

  // The loop.

  private void run() {
    try {
      while (closing.getCount() > 0) {
        long pauseMillis = pace.watch().toMillis();
        try {
          if (turn()) {
            pauseMillis = patience.retry().toMillis();
          }
        } catch (StoreUnavailableException e) {
          LOG.warn("pools: the database does not answer: {}", e.getMessage());
        } catch (RuntimeException e) {
          LOG.error("pools: a fault of the control plane", e);
        }
        if (woken.tryAcquire(pauseMillis, TimeUnit.MILLISECONDS)
            && !closing.await(pace.breath().toMillis(), TimeUnit.MILLISECONDS)) {
          woken.drainPermits();
        }
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private void wake() {
    woken.release();
  }

  /// One comparison of rows and wishes.
  ///
  /// @return whether something waits for a place to be launched in
  private boolean turn() {
    List<WarmSandbox> rows = store.warmSandboxes(owner);
    Instant now = clock.instant();
    lock.lock();
    try {
      Set<Id> free = new HashSet<>();
      pools.values().forEach(pool -> pool.free.forEach(warm -> free.add(warm.id())));
      boolean waits = false;
      for (WarmSandbox row : rows) {
        if (!inWork.containsKey(row.id())
            && !offered.contains(row.id())
            && !free.contains(row.id())) {
          waits |= takeUp(row);
        }
      }
      for (Pool pool : pools.values()) {
        waits |= keep(pool, now);
      }
      return waits;
    } finally {
      lock.unlock();
    }
  }

  /// A row that nobody looks after: an earlier control plane's, or one whose last commit's outcome
  /// was unknown, or one that could not be destroyed.
  ///
  /// @param seen as it was a moment ago
  /// @return whether it waits for a place to be launched in
  private boolean takeUp(WarmSandbox seen) {
    Id id = seen.id();
    Optional<Pool> pool = draining ? Optional.empty() : poolOf(seen);
    if (pool.isEmpty() || seen.state() == WarmSandbox.State.RETIRING) {
      begin(id, new InWork(Work.RETIRE, Optional.empty()), () -> retire(seen));
      return false;
    }
    if (!launches.tryAcquireWarm()) {
      return true;
    }
    begin(
        id,
        new InWork(Work.LAUNCH, pool),
        () -> {
          try {
            // From here on nobody else here touches it, so what the row says now stays true.
            Optional<WarmSandbox> row = store.warmSandbox(id);
            return row.isPresent() && resume(pool.get(), row.get());
          } finally {
            launches.releaseWarm();
          }
        });
    return false;
  }

  private boolean resume(Pool pool, WarmSandbox row) {
    return switch (row.state()) {
      case WARMING -> warm(pool, row);
      case WARM -> verify(pool, row);
      case RETIRING -> retire(row);
    };
  }

  /// Empty where nothing configured is what this one was launched as.
  private Optional<Pool> poolOf(WarmSandbox row) {
    try {
      return Optional.ofNullable(
          pools.get(
              new PoolKey(
                  row.template(), row.resources(), policies.byReference(row.policy()).boundary())));
    } catch (IllegalStateException e) {
      LOG.warn("sandbox {}: given up: {}", row.id(), e.getMessage());
      return Optional.empty();
    }
  }

  private boolean keep(Pool pool, Instant now) {
    int coming =
        (int)
            inWork.values().stream()
                .filter(w -> w.work() == Work.LAUNCH && w.pool().equals(Optional.of(pool)))
                .count();
    int target = target(pool, now);
    PoolPlan plan = PoolPlan.of(target, List.copyOf(pool.free), coming, pace.maxAge(), now);
    for (WarmSandbox warm : List.copyOf(pool.free)) {
      if (plan.retire().contains(warm.id())) {
        pool.free.remove(warm);
        begin(warm.id(), new InWork(Work.RETIRE, Optional.empty()), () -> retire(warm));
      }
    }
    if (now.isBefore(pool.notBefore) || now.isBefore(fullUntil)) {
      return false;
    }
    for (int i = 0; i < plan.launch(); i++) {
      if (!launches.tryAcquireWarm()) {
        return true;
      }
      Id id = ids.sandbox();
      begin(
          id,
          new InWork(Work.LAUNCH, Optional.of(pool)),
          () -> {
            try {
              return launch(pool, id);
            } finally {
              launches.releaseWarm();
            }
          });
    }
    return false;
  }

  private int target(Pool pool, Instant now) {
    return draining ? 0 : pool.size.target(pool.demand.perMinute(now), pace.lead());
  }

  // Work on one sandbox, each on a thread of its own.

  private interface Task {
    /// @return whether the loop should look again at once
    boolean run();
  }

  /// With `lock` held.
  private void begin(Id id, InWork what, Task task) {
    inWork.put(id, what);
    Thread.ofVirtual()
        .name("warm-" + id)
        .start(() -> {
          boolean again = false;
          try {
            again = task.run();
          } catch (StoreUnavailableException e) {
            LOG.warn("sandbox {}: the database does not answer: {}", id, e.getMessage());
          } catch (RuntimeException e) {
            LOG.error("sandbox {}: a fault of the control plane", id, e);
            what.pool().ifPresent(pool -> failed(pool, "a fault of the control plane"));
          } finally {
            done(id);
            if (again) {
              wake();
            }
          }
        });
  }

  private void done(Id id) {
    lock.lock();
    try {
      inWork.remove(id);
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  private boolean launch(Pool pool, Id id) {
    Instant now = clock.instant();
    WarmSandbox row =
        new WarmSandbox(
            id,
            owner,
            pool.key.template(),
            pool.key.resources(),
            pool.policy,
            WarmSandbox.State.WARMING,
            "",
            now,
            now,
            now.plus(pace.maxAge().multipliedBy(2)).plus(lifetime(pool.key)));
    if (store.commit(Commit.of(id, new Change.AddWarm(row))) instanceof CommitResult.Refused r) {
      throw new IllegalStateException("a new warm sandbox was refused: " + r.refusal());
    }
    return warm(pool, row);
  }

  private boolean warm(Pool pool, WarmSandbox row) {
    Id id = row.id();
    try {
      driver.launch(
          new LaunchSpec(
              id,
              Optional.empty(),
              row.template(),
              row.resources(),
              pool.key.boundary(),
              agents.token(id),
              Map.of(),
              row.expiresAt()),
          patience.launch());
      AgentConnection agent = agents.open(id);
      agent.connection().close();
      Optional<String> bootId = Optional.of(agent.greeting().bootId());
      Instant now = clock.instant();
      CommitResult result =
          store.commit(
              Commit.of(
                  id,
                  new Change.MoveWarm(
                      Set.of(WarmSandbox.State.WARMING), WarmSandbox.State.WARM, bootId, now)));
      if (result instanceof CommitResult.Refused) {
        throw new IllegalStateException("a warm sandbox was moved on by somebody else");
      }
      addFree(pool, row.moved(WarmSandbox.State.WARM, bootId, now));
      return true;
    } catch (DriverException e) {
      LOG.warn("sandbox {}: not warm: {}", id, e.getMessage());
      failed(pool, e.getMessage());
      if (e instanceof DriverException.Full) {
        lock.lock();
        try {
          fullUntil = clock.instant().plus(pace.full());
        } finally {
          lock.unlock();
        }
      }
      return retire(row);
    }
  }

  /// Of an earlier control plane: its agent must be the one that was warm.
  private boolean verify(Pool pool, WarmSandbox row) {
    try {
      AgentConnection agent = agents.open(row.id());
      agent.connection().close();
      if (agent.greeting().bootId().equals(row.bootId())) {
        addFree(pool, row);
        return true;
      }
      LOG.warn("sandbox {}: given up: its agent is another one", row.id());
    } catch (DriverException e) {
      LOG.warn("sandbox {}: given up: {}", row.id(), e.getMessage());
    }
    return retire(row);
  }

  private void addFree(Pool pool, WarmSandbox warm) {
    lock.lock();
    try {
      pool.free.addLast(warm);
      pool.failures = 0;
      pool.tally = pool.tally.launched(true);
    } finally {
      lock.unlock();
    }
  }

  private void failed(Pool pool, String reason) {
    lock.lock();
    try {
      Instant now = clock.instant();
      pool.failures++;
      pool.tally = pool.tally.launched(false);
      pool.notBefore = now.plus(pace.pause(pool.failures));
      pool.lastFailure = Optional.of(new Failure(reason, now));
    } finally {
      lock.unlock();
    }
  }

  /// Destroys one that nobody has claimed. That it has to go is durable before anything of it is
  /// removed.
  ///
  /// @return whether it is gone, by this call
  private boolean retire(WarmSandbox row) {
    Id id = row.id();
    Instant now = clock.instant();
    if (store.commit(
            Commit.of(
                id,
                new Change.MoveWarm(UNCLAIMED, WarmSandbox.State.RETIRING, Optional.empty(), now)))
        instanceof CommitResult.Refused) {
      return false;
    }
    try {
      driver.destroy(id, patience.destroy());
    } catch (DriverException e) {
      LOG.warn("sandbox {}: not destroyed yet: {}", id, e.getMessage());
      return false;
    }
    agents.forget(id);
    CommitResult _ = store.commit(Commit.of(id, new Change.TakeWarm(WarmSandbox.State.RETIRING)));
    return true;
  }

  // Watching.

  /// One whose agent dies while it is warm must not be handed out.
  private void watch() {
    try {
      while (!closing.await(pace.watch().toMillis(), TimeUnit.MILLISECONDS)) {
        for (Map.Entry<WarmSandbox, Pool> entry : everyFree()) {
          try {
            inspect(entry.getKey(), entry.getValue());
          } catch (RuntimeException e) {
            LOG.error("sandbox {}: not inspected", entry.getKey().id(), e);
          }
        }
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private Collection<Map.Entry<WarmSandbox, Pool>> everyFree() {
    lock.lock();
    try {
      List<Map.Entry<WarmSandbox, Pool>> every = new ArrayList<>();
      pools.values().forEach(pool -> pool.free.forEach(warm -> every.add(Map.entry(warm, pool))));
      return every;
    } finally {
      lock.unlock();
    }
  }

  private void inspect(WarmSandbox warm, Pool pool) {
    Optional<BackendState> state;
    try {
      state = driver.inspect(warm.id(), patience.inspect());
    } catch (DriverException e) {
      LOG.warn("sandbox {}: the backend does not answer: {}", warm.id(), e.getMessage());
      return;
    }
    if (state.filter(s -> s.status() == BackendState.Status.RUNNING).isPresent()) {
      return;
    }
    String why =
        state.map(BackendState::detail).filter(d -> !d.isEmpty()).orElse("it is not there");
    lock.lock();
    try {
      if (pool.free.remove(warm)) {
        LOG.warn("sandbox {}: its agent's process has ended while it was warm: {}", warm.id(), why);
        pool.lastFailure =
            Optional.of(new Failure("one ended while it was warm: " + why, clock.instant()));
        begin(warm.id(), new InWork(Work.RETIRE, Optional.empty()), () -> retire(warm));
      }
    } finally {
      lock.unlock();
    }
  }

  // Looking in.

  @Override
  public List<State> list(Operation operation) {
    if (operation.principal().role() != Role.OPERATOR) {
      throw new ProblemException(
          new Problem.Forbidden(
              "pools are shown to a key of role operator; this one has role "
                  + operation.principal().role().wireName()));
    }
    return states();
  }

  /// Every pool as it is, for who needs no key: the process's own metrics.
  public List<State> states() {
    lock.lock();
    try {
      Instant now = clock.instant();
      List<State> states = new ArrayList<>();
      for (Pool pool : pools.values()) {
        int warming =
            (int)
                inWork.values().stream()
                    .filter(w -> w.work() == Work.LAUNCH && w.pool().equals(Optional.of(pool)))
                    .count();
        states.add(
            new State(
                pool.key,
                pool.policy,
                pool.size,
                target(pool, now),
                pool.free.size(),
                warming,
                pool.demand.perMinute(now),
                pool.tally,
                pool.lastFailure));
      }
      return states;
    } finally {
      lock.unlock();
    }
  }

  // Ending.

  /// Destroys every warm sandbox and makes no more, for the rest of this control plane's life.
  ///
  /// @return whether all are gone; what is left is the next control plane's to finish
  public boolean drain(Duration timeout) {
    lock.lock();
    try {
      draining = true;
    } finally {
      lock.unlock();
    }
    long end = System.nanoTime() + timeout.toNanos();
    try {
      while (true) {
        wake();
        try {
          if (idle() && store.warmSandboxes(owner).isEmpty()) {
            return true;
          }
        } catch (StoreUnavailableException e) {
          LOG.warn("pools: not drained: {}", e.getMessage());
          return false;
        }
        if (System.nanoTime() > end || closing.await(20, TimeUnit.MILLISECONDS)) {
          return false;
        }
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  private boolean idle() {
    lock.lock();
    try {
      return inWork.isEmpty() && offered.isEmpty();
    } finally {
      lock.unlock();
    }
  }

  /// Ends the loop; returns when nothing is at work any more, or too long is. Leaves what is warm.
  @Override
  public void close() {
    closing.countDown();
    wake();
    lock.lock();
    try {
      long left = patience.stop().toNanos();
      while (!inWork.isEmpty() && left > 0) {
        left = changed.awaitNanos(left);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } finally {
      lock.unlock();
    }
  }
}
