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
import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.Message;
import java.io.IOException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
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
/// Threading: [#run] on one virtual thread; [#wake], [#close] from any.
final class SandboxLoop {
  private static final Logger LOG = LoggerFactory.getLogger(SandboxLoop.class);

  /// Before the reason of a sandbox that is being removed because it failed: the intent is durable
  /// before anything is removed, and it ends `failed` and not `gone` whoever finishes it.
  private static final String FAILED = "failed: ";

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
  private boolean adopted;
  private long inspectedAt;

  SandboxLoop(Launcher.Surroundings around, Id id) {
    this.around = around;
    this.patience = around.patience();
    this.id = id;
    this.flows = new FlowLog(around.store(), around.clock(), id);
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
          Optional<Sandbox> row = around.store().sandbox(id);
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
    around.launches().acquire();
    try {
      // Others may have been launched for a while: is it still wanted?
      if (closed || around.store().sandbox(id).filter(s -> s.phase() == Phase.STARTING).isEmpty()) {
        return;
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
      around.driver().launch(spec, patience.launch());
      openEgress(sandbox);
      AgentConnection agent = around.agents().open(id);
      agent.connection().close();
      writeFiles();
      adopted = true;
      move(
          Set.of(Phase.STARTING),
          Phase.READY,
          "",
          Optional.of(agent.greeting().bootId()),
          List.of(new Change.ForgetFiles()));
    } catch (DriverException e) {
      fail(sandbox, e.getMessage());
    } catch (IOException e) {
      fail(sandbox, "it could not be prepared: " + e.getMessage());
    } finally {
      around.launches().release();
    }
  }

  private void writeFiles() throws DriverException, IOException {
    for (InlineFile file : around.store().files(id)) {
      AgentConnection agent = around.agents().open(id);
      try (Connection connection = agent.connection();
          Agents.Deadline _ = around.agents().deadline(connection, patience.answer())) {
        try {
          send(connection, file);
        } catch (IOException e) {
          // The agent says why before it closes.
          LOG.debug("sandbox {}: sending {} broke off", id, file.path(), e);
        }
        switch (connection.receive()) {
          case Message.FileInfo _ -> {}
          case Message.Failure failure -> throw notWritten(file, failure.message());
          case null -> throw notWritten(file, "the agent closed the connection");
          case Message other ->
              throw notWritten(file, "an unexpected " + other.getClass().getSimpleName());
        }
      }
    }
  }

  private static void send(Connection connection, InlineFile file) throws IOException {
    connection.send(new Message.WriteFile(file.path(), 0644));
    byte[] bytes = file.bytes();
    for (int at = 0; at < bytes.length; at += Limits.CHUNK_BYTES) {
      int end = Math.min(bytes.length, at + Limits.CHUNK_BYTES);
      connection.send(new Message.Chunk(Arrays.copyOfRange(bytes, at, end)));
    }
    connection.send(new Message.ChunksEnd(bytes.length));
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
      return new Verdict(decision.allowed() || policy.shadow(), rule, decision.reason());
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
    if (inspectedAt == 0 || System.nanoTime() - inspectedAt >= patience.watch().toNanos()) {
      Optional<BackendState> state = around.driver().inspect(id, patience.inspect());
      if (state.isEmpty() || state.get().status() != BackendState.Status.RUNNING) {
        String detail =
            state.map(BackendState::detail).filter(d -> !d.isEmpty()).orElse("it is not there");
        fail(sandbox, "its agent's process has ended: " + detail);
        return;
      }
      inspectedAt = System.nanoTime();
    }
    if (!adopted) {
      adopt(sandbox);
    }
    for (Call call : around.store().liveCalls(id)) {
      if (ToolNames.runs(call.tool())) {
        runners.computeIfAbsent(call.id(), _ -> begin(sandbox, call));
      }
    }
    waitForChange(sandbox);
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

  private CallRunner begin(Sandbox sandbox, Call call) {
    Policy policy = around.policies().byReference(sandbox.policy());
    CallRunner runner =
        new CallRunner(
            new CallRunner.Surroundings(
                around.store(),
                around.agents(),
                around.clock(),
                around.limits(),
                patience,
                policy.maxResultBytes()),
            sandbox,
            call.id());
    Thread.ofVirtual()
        .name("call-" + call.id())
        .start(() -> {
          try {
            if (runner.run() == CallRunner.End.AGENT_FAILED) {
              agentFault = runner.agentFault();
            }
          } catch (RuntimeException e) {
            LOG.error("call {}: a fault of the control plane", call.id(), e);
            agentFault = "a fault of the control plane ended call " + call.id();
          } finally {
            runners.remove(call.id());
            wake();
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
