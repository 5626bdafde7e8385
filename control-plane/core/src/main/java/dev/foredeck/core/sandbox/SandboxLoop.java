package dev.foredeck.core.sandbox;

import dev.foredeck.core.Events;
import dev.foredeck.core.Id;
import dev.foredeck.core.Patience;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.Driver.AgentConnection;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.core.egress.EgressGateway;
import dev.foredeck.core.egress.EgressGateway.Verdict;
import dev.foredeck.core.gate.Agents;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallResult;
import dev.foredeck.core.gate.CallRunner;
import dev.foredeck.core.gate.CallStatus;
import dev.foredeck.core.gate.FileSender;
import dev.foredeck.core.gate.ToolNames;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
import dev.foredeck.core.store.Store.StoreUnavailableException;
import dev.foredeck.policy.Action;
import dev.foredeck.policy.Decision;
import dev.foredeck.policy.HostPattern;
import dev.foredeck.policy.Policy;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import java.io.IOException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Looks after one sandbox from its row's phase on: launches it, runs its calls, watches it, ends
/// it. Reads the row at every turn and changes it only by conditional commits, so that whatever
/// happened meanwhile (a destroy, a crash) is found.
///
/// Threading: [#run()] on one virtual thread; [#run(Sandbox, Call)], [#wake], [#close] from any.
/// Invariant: a call has at most one runner here. After `tended` is empty no runner is left
/// unstopped.
final class SandboxLoop {
  private static final Logger LOG = LoggerFactory.getLogger(SandboxLoop.class);

  /// Before the reason of a sandbox that is being removed because it failed: the intent is durable
  /// before anything is removed, and it ends `failed` and not `gone` whoever finishes it.
  private static final String FAILED = "failed: ";

  /// Before the reason of a sandbox that was claimed from a pool and whose agent was dead before
  /// anything was asked of it: what is left of it goes before it is launched anew.
  private static final String AGAIN = "launched anew: ";

  /// Faults of ours in a row after which the sandbox is given up.
  private static final int MOST_FAULTS = 3;

  private final Launcher.Surroundings around;
  private final Patience patience;
  private final Id id;
  private final Semaphore woken = new Semaphore(0);
  private final CountDownLatch done = new CountDownLatch(1);
  private final Map<Id, CallRunner> runners = new ConcurrentHashMap<>();
  private final FlowLog flows;
  private volatile boolean closed;
  private volatile @Nullable String agentFault;
  private volatile boolean notBegun;
  private @Nullable Recorded recorded;

  /// The sandbox that calls run in, while this loop lets them.
  private volatile @Nullable Sandbox tended;

  private boolean adopted;
  private long inspectedAt;

  /// What was committed just now: the first turn need not read it.
  private record Recorded(Sandbox sandbox, Optional<Call> call) {}

  /// Of a sandbox that was recorded just now.
  SandboxLoop(Launcher.Surroundings around, Sandbox sandbox, Optional<Call> call) {
    this(around, sandbox.id());
    this.recorded = new Recorded(sandbox, call);
  }

  SandboxLoop(Launcher.Surroundings around, Id id) {
    this.around = around;
    this.patience = around.patience();
    this.id = id;
    this.flows = new FlowLog(around.store(), around.clock(), id);
  }

  Id sandbox() {
    return id;
  }

  /// The row changed: look at it.
  void wake() {
    woken.release();
  }

  /// Lets go of the sandbox and leaves it as it is.
  void close() {
    closed = true;
    wake();
  }

  /// Runs a call that was recorded just now without another look at the rows.
  ///
  /// @param sandbox read before the call was recorded: its time to live is newer than what this
  ///   loop knows, and a call is only recorded for a sandbox that is not stopping
  /// @return false when that is for a turn of the loop to do
  boolean run(Sandbox sandbox, Call call) {
    if (!tends(sandbox) || call.status().ended() || expired(sandbox)) {
      return false;
    }
    CallRunner runner =
        runners.computeIfAbsent(
            call.id(), _ -> begin(new CallRunner(forRunner(sandbox), sandbox, call), call));
    if (!tends(sandbox)) {
      runner.stop();
      return false;
    }
    return true;
  }

  private boolean tends(Sandbox sandbox) {
    Sandbox known = tended;
    return known != null
        && agentFault == null
        && !notBegun
        && known.bootId().equals(sandbox.bootId());
  }

  void awaitEnd(long nanos) {
    try {
      boolean _ = done.await(nanos, TimeUnit.NANOSECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  void run() {
    long retryMillis = patience.retry().toMillis();
    int faults = 0;
    try {
      while (!closed) {
        try {
          Recorded known = recorded;
          recorded = null;
          if (known != null && known.sandbox().phase() == Phase.READY) {
            begin(known);
            continue;
          }
          Optional<Sandbox> row =
              known == null ? around.store().sandbox(id) : Optional.of(known.sandbox());
          if (row.isEmpty()) {
            return;
          }
          if (faults >= MOST_FAULTS && row.get().phase() != Phase.STOPPING) {
            fail(row.get(), "a fault of the control plane");
          } else if (!step(row.get())) {
            return;
          }
          retryMillis = patience.retry().toMillis();
          faults = 0;
        } catch (StoreUnavailableException e) {
          LOG.warn("sandbox {}: the database does not answer: {}", id, e.getMessage());
          sleep(retryMillis);
          retryMillis = longer(retryMillis);
        } catch (DriverException e) {
          LOG.warn("sandbox {}: the backend does not answer: {}", id, e.getMessage());
          sleep(retryMillis);
          retryMillis = longer(retryMillis);
        } catch (RuntimeException e) {
          LOG.error("sandbox {}: a fault of the control plane", id, e);
          faults++;
          sleep(retryMillis);
          retryMillis = longer(retryMillis);
        }
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } finally {
      try {
        stopRunners();
        endFlows();
        around.agents().forget(id);
      } finally {
        done.countDown();
      }
    }
  }

  /// Nobody looks after the sandbox from here on, so nothing of it goes to the web: what is under
  /// way ends now, while its flows can still be recorded.
  private void endFlows() {
    try {
      around.egress().close(id, flows);
      flows.flush(patience.stop());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } finally {
      flows.close();
    }
  }

  private long longer(long millis) {
    return Math.min(millis * 2, patience.mostRetry().toMillis());
  }

  /// One turn.
  ///
  /// @return whether there is a next one
  private boolean step(Sandbox sandbox)
      throws InterruptedException, StoreUnavailableException, DriverException {
    switch (sandbox.phase()) {
      case REQUESTED ->
          move(Set.of(Phase.REQUESTED), Phase.STARTING, "", Optional.empty(), List.of());
      case STARTING -> launch(sandbox);
      case READY -> tend(sandbox);
      case STOPPING -> stop(sandbox);
      case PAUSED -> throw new IllegalStateException("no driver pauses");
      case GONE, FAILED -> {
        return false;
      }
    }
    return true;
  }

  private void launch(Sandbox sandbox) throws InterruptedException, DriverException {
    if (expired(sandbox)) {
      expire(Phase.STARTING);
      return;
    }
    if (!sandbox.bootId().isEmpty()) {
      prepareClaimed(sandbox);
      return;
    }
    around.pools().launches().acquire();
    try {
      // Others may have been launched for a while: is it still wanted?
      if (closed || around.store().sandbox(id).filter(s -> s.phase() == Phase.STARTING).isEmpty()) {
        return;
      }
      if (sandbox.reason().startsWith(AGAIN)) {
        around.driver().destroy(id, patience.destroy());
      }
      LaunchSpec spec =
          new LaunchSpec(
              id,
              sandbox.tenant(),
              sandbox.template(),
              sandbox.resources(),
              around.policies().byReference(sandbox.policy()).boundary(),
              around.agents().token(id),
              sandbox.labels(),
              sandbox.expiresAt());
      launch(spec);
      openEgress(sandbox);
      AgentConnection agent = around.agents().open(id);
      agent.connection().close();
      makeReady(agent.greeting().bootId(), "");
    } catch (DriverException e) {
      fail(sandbox, e.getMessage());
    } catch (IOException e) {
      fail(sandbox, "it could not be prepared: " + e.getMessage());
    } finally {
      around.pools().launches().release();
    }
  }

  private void launch(LaunchSpec spec) throws DriverException, InterruptedException {
    while (true) {
      try {
        around.driver().launch(spec, patience.launch());
        return;
      } catch (DriverException.Full e) {
        // Nobody waits for a warm one: it makes room, as long as there are any.
        if (!around.pools().makeRoom()) {
          throw e;
        }
      }
    }
  }

  /// Claimed from a pool with files: it runs already, and is ready when they are written.
  private void prepareClaimed(Sandbox sandbox) {
    try {
      openEgress(sandbox);
      AgentConnection agent = around.agents().open(id);
      agent.connection().close();
      if (!agent.greeting().bootId().equals(sandbox.bootId())) {
        launchAnew(sandbox, "its agent was another one");
        return;
      }
      makeReady(sandbox.bootId(), sandbox.reason());
    } catch (DriverException.NotThere e) {
      // No call runs before it is ready, so nothing has run in it.
      launchAnew(sandbox, e.getMessage());
    } catch (DriverException e) {
      fail(sandbox, e.getMessage());
    } catch (IOException e) {
      fail(sandbox, "it could not be prepared: " + e.getMessage());
    }
  }

  private void makeReady(String bootId, String reason) throws DriverException, IOException {
    writeFiles();
    adopted = true;
    move(
        Set.of(Phase.STARTING),
        Phase.READY,
        reason,
        Optional.of(bootId),
        List.of(new Change.ForgetFiles()));
  }

  /// A warm one that died before anything was asked of it: what it was claimed for is done in a new
  /// one of the same name.
  private void launchAnew(Sandbox sandbox, String why) {
    LOG.warn("sandbox {}: claimed, and its agent was gone: {}", id, why);
    stopRunners();
    adopted = false;
    notBegun = false;
    move(Set.of(sandbox.phase()), Phase.STARTING, AGAIN + why, Optional.of(""), List.of());
  }

  private void writeFiles() throws DriverException, IOException {
    for (InlineFile file : around.store().files(id)) {
      AgentConnection agent = around.agents().open(id);
      try (Connection connection = agent.connection();
          Agents.Deadline deadline = around.agents().deadline(connection, patience.answer())) {
        switch (FileSender.send(connection, deadline, file.path(), FileSender.of(file.bytes()))) {
          case Message.FileInfo _ -> {}
          case Message.Failure failure -> throw notWritten(file, failure.message());
          case null -> throw notWritten(file, "the agent closed the connection");
          case Message other ->
              throw notWritten(file, "an unexpected " + other.getClass().getSimpleName());
        }
      }
    }
  }

  private static IOException notWritten(InlineFile file, String why) {
    return new IOException("the file '" + file.path() + "' was not written: " + why);
  }

  /// Opens the way to the web under the policy that the sandbox started under.
  private void openEgress(Sandbox sandbox) throws IOException {
    var path = around.driver().egressPath(id, around.agents().token(id));
    if (path.isPresent()) {
      around.egress().open(id, path.get(), rules(sandbox), flows);
    }
  }

  private EgressGateway.EgressRules rules(Sandbox sandbox) {
    Policy policy = around.policies().byReference(sandbox.policy());
    Optional<List<HostPattern>> narrowed =
        sandbox.networkAllow().map(hosts -> hosts.stream().map(HostPattern::parse).toList());
    return (host, port, method, path) -> {
      if (narrowed.isPresent()
          && narrowed.get().stream().noneMatch(pattern -> pattern.matches(host, port))) {
        return new Verdict(
            false, "network.allow", "this sandbox was asked for with a narrower network.allow");
      }
      Decision decision = policy.decide(new Action.EgressConnect(host, port, method, path));
      String rule = decision.rules().isEmpty() ? "default" : decision.rules().getFirst();
      boolean shadow = !decision.allowed() && policy.shadow();
      return new Verdict(decision.allowed() || shadow, rule, decision.reason(), shadow);
    };
  }

  private void tend(Sandbox sandbox) throws InterruptedException, DriverException {
    String fault = agentFault;
    if (fault != null) {
      fail(sandbox, fault);
      return;
    }
    if (expired(sandbox)) {
      expire(Phase.READY);
      return;
    }
    if (notBegun) {
      launchAnew(sandbox, "its agent's process has ended");
      return;
    }
    if (inspectedAt == 0 || System.nanoTime() - inspectedAt >= patience.watch().toNanos()) {
      Optional<BackendState> state = around.driver().inspect(id, patience.inspect());
      if (state.isEmpty() || state.get().status() != BackendState.Status.RUNNING) {
        String detail =
            state.map(BackendState::detail).filter(d -> !d.isEmpty()).orElse("it is not there");
        if (around.agents().untouched(id)) {
          launchAnew(sandbox, detail);
        } else {
          fail(sandbox, "its agent's process has ended: " + detail);
        }
        return;
      }
      inspectedAt = System.nanoTime();
    }
    if (!adopted) {
      adopt(sandbox);
    }
    for (Call call : around.store().liveCalls(id)) {
      if (ToolNames.runs(call.tool())) {
        runners.computeIfAbsent(
            call.id(), _ -> begin(new CallRunner(forRunner(sandbox), sandbox, call.id()), call));
      } else if (abandoned(call)) {
        end(
            call,
            CallStatus.LOST,
            "its end could not be recorded; whether it took effect is unknown");
      }
    }
    tended = sandbox;
    waitForChange(sandbox);
  }

  /// Claimed from a pool just now: its agent was well a moment ago, and its first call waits for
  /// nothing but the way to the web.
  private void begin(Recorded claimed) throws DriverException {
    try {
      openEgress(claimed.sandbox());
    } catch (IOException e) {
      // The turns to come try again.
      throw new DriverException.Failed("its egress socket cannot be opened: " + e.getMessage(), e);
    }
    adopted = true;
    inspectedAt = System.nanoTime();
    claimed
        .call()
        .ifPresent(call ->
            runners.computeIfAbsent(
                call.id(),
                _ ->
                    begin(
                        new CallRunner(forRunner(claimed.sandbox()), claimed.sandbox(), call),
                        call)));
    tended = claimed.sandbox();
  }

  /// Whether a call that is done at once has nobody left who would end it.
  private boolean abandoned(Call call) {
    return around.clock().instant().isAfter(call.deadline())
        && !around.callsInHand().contains(call.id());
  }

  /// After a restart: the gateway listens again, and calls of the control plane before this one
  /// that were done at once and had not ended are lost.
  private void adopt(Sandbox sandbox) throws DriverException {
    try {
      openEgress(sandbox);
    } catch (IOException e) {
      throw new DriverException.Failed("its egress socket cannot be opened: " + e.getMessage(), e);
    }
    for (Call call : around.store().liveCalls(id)) {
      if (!ToolNames.runs(call.tool()) && call.requestedAt().isBefore(around.began())) {
        end(
            call,
            CallStatus.LOST,
            "the control plane restarted; whether it took effect is unknown");
      }
    }
    adopted = true;
    LOG.info("sandbox {}: adopted", id);
  }

  private CallRunner.Surroundings forRunner(Sandbox sandbox) {
    Policy policy = around.policies().byReference(sandbox.policy());
    return new CallRunner.Surroundings(
        around.store(),
        around.agents(),
        around.clock(),
        around.limits(),
        patience,
        policy.maxResultBytes());
  }

  private CallRunner begin(CallRunner runner, Call call) {
    Thread.ofVirtual()
        .name("call-" + call.id())
        .start(() -> {
          // A call that has just ended leaves nothing to look after, unless its sandbox goes too.
          boolean look = true;
          try {
            switch (runner.run()) {
              case CALL_ENDED -> look = call.destroysSandbox();
              case AGENT_FAILED -> agentFault = runner.agentFault();
              case NOT_BEGUN -> notBegun = true;
              case STOPPED -> {}
            }
          } catch (RuntimeException e) {
            LOG.error("call {}: a fault of the control plane", call.id(), e);
            agentFault = "a fault of the control plane ended call " + call.id();
          } finally {
            runners.remove(call.id());
            if (look) {
              wake();
            }
          }
        });
    return runner;
  }

  private void waitForChange(Sandbox sandbox) throws InterruptedException {
    long untilExpiry =
        Duration.between(around.clock().instant(), sandbox.expiresAt()).toMillis() + 1;
    boolean _ =
        woken.tryAcquire(
            Math.clamp(untilExpiry, 1, patience.watch().toMillis()), TimeUnit.MILLISECONDS);
    woken.drainPermits();
  }

  private boolean expired(Sandbox sandbox) {
    return !around.clock().instant().isBefore(sandbox.expiresAt());
  }

  private void expire(Phase from) {
    move(Set.of(from), Phase.STOPPING, "its time to live is over", Optional.empty(), List.of());
  }

  /// Removes all of it. First the calls' ends, then the backend: a reader learns how a call ended
  /// before it learns that the sandbox is gone. No call is added to a sandbox that is stopping.
  private void stop(Sandbox sandbox) throws DriverException, InterruptedException {
    boolean failed = sandbox.reason().startsWith(FAILED);
    String reason = failed ? sandbox.reason().substring(FAILED.length()) : sandbox.reason();
    CallStatus status = CallStatus.CANCELLED;
    if (failed) {
      status = sandbox.bootId().isEmpty() ? CallStatus.FAILED : CallStatus.LOST;
    }
    stopRunners();
    for (Call call : around.store().liveCalls(id)) {
      end(call, status, "the sandbox " + (failed ? "failed: " : "was destroyed: ") + reason);
    }
    around.driver().destroy(id, patience.destroy());
    around.egress().close(id, flows);
    flows.flush(patience.stop());
    move(
        Set.of(Phase.STOPPING),
        failed ? Phase.FAILED : Phase.GONE,
        reason,
        Optional.empty(),
        List.of(new Change.ForgetFiles()));
  }

  private void fail(Sandbox sandbox, String reason) {
    LOG.warn("sandbox {}: failed: {}", id, reason);
    move(Set.of(sandbox.phase()), Phase.STOPPING, FAILED + reason, Optional.empty(), List.of());
  }

  private void end(Call call, CallStatus status, String reason) {
    Instant now = around.clock().instant();
    long wallMillis =
        call.startedAt().map(at -> Math.max(0, Duration.between(at, now).toMillis())).orElse(0L);
    CallResult result =
        new CallResult(
            status, -1, 0, reason, 0, 0, wallMillis, call.stdoutBytes() + call.stderrBytes(), now);
    // Refused when it ended by itself just now: as good.
    CommitResult _ =
        around
            .store()
            .commit(
                Commit.of(
                    id,
                    new Change.EndCall(call.id(), result),
                    new Change.AppendEvent(Events.ended(call.id(), result))));
  }

  private void move(
      Set<Phase> from, Phase to, String reason, Optional<String> bootId, List<Change> more) {
    Instant now = around.clock().instant();
    List<Change> changes = new ArrayList<>();
    changes.add(new Change.MoveSandbox(from, to, reason, bootId, now));
    changes.addAll(more);
    changes.add(new Change.AppendEvent(Events.phase(now, to, reason)));
    // Refused when somebody moved it elsewhere: the next turn reads where.
    CommitResult _ = around.store().commit(new Commit(id, changes));
  }

  private void stopRunners() {
    tended = null;
    runners.values().forEach(CallRunner::stop);
    long end = System.nanoTime() + patience.stop().toNanos();
    while (!runners.isEmpty() && System.nanoTime() < end) {
      try {
        Thread.sleep(1);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        return;
      }
    }
  }

  private void sleep(long millis) throws InterruptedException {
    if (!closed) {
      Thread.sleep(millis);
    }
  }
}
