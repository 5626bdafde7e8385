package dev.foredeck.core.sandbox;

import dev.foredeck.core.Events;
import dev.foredeck.core.Id;
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
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Looks after one sandbox from its row's phase on: launches it, runs its calls, watches it, ends
/// it. Reads the row at every turn and changes it only by conditional commits, so that whatever
/// happened meanwhile (a destroy, a crash) is found.
///
/// Threading: [#run] on one virtual thread; [#wake], [#close] from any.
final class SandboxLoop {
  private static final Logger LOG = LoggerFactory.getLogger(SandboxLoop.class);

  private static final Duration LAUNCH = Duration.ofSeconds(60);
  private static final Duration DESTROY = Duration.ofSeconds(60);
  private static final Duration INSPECT = Duration.ofSeconds(10);
  private static final Duration WRITE_FILE = Duration.ofSeconds(30);
  private static final Duration STOP_RUNNERS = Duration.ofSeconds(10);

  /// How often the backend is asked whether the sandbox is still there.
  private static final long WATCH_MILLIS = 2_000;

  private static final long RETRY_MILLIS = 200;
  private static final long RETRY_MOST_MILLIS = 10_000;

  private final Launcher.Surroundings around;
  private final Id id;
  private final Semaphore woken = new Semaphore(0);
  private final CountDownLatch done = new CountDownLatch(1);
  private final Map<Id, CallRunner> runners = new ConcurrentHashMap<>();
  private final FlowLog flows;
  private volatile boolean closed;
  private volatile boolean agentFailed;
  private boolean adopted;

  SandboxLoop(Launcher.Surroundings around, Id id) {
    this.around = around;
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

  void awaitEnd() {
    try {
      boolean _ = done.await(STOP_RUNNERS.toSeconds() * 2, TimeUnit.SECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  void run() {
    long retryMillis = RETRY_MILLIS;
    try {
      while (!closed) {
        try {
          Optional<Sandbox> row = around.store().sandbox(id);
          if (row.isEmpty() || !step(row.get())) {
            return;
          }
          retryMillis = RETRY_MILLIS;
        } catch (StoreUnavailableException e) {
          LOG.warn("sandbox {}: the database does not answer: {}", id, e.getMessage());
          sleep(retryMillis);
        } catch (DriverException e) {
          // Only ends get here, and an end is tried until it succeeds.
          LOG.warn("sandbox {}: not destroyed yet: {}", id, e.getMessage());
          sleep(retryMillis);
          retryMillis = Math.min(retryMillis * 2, RETRY_MOST_MILLIS);
        }
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } finally {
      stopRunners();
      flows.close();
      done.countDown();
    }
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
      around.driver().launch(spec, LAUNCH);
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
    } catch (DriverException.Refused | DriverException.NotThere | DriverException.Full e) {
      fail(sandbox, e.getMessage());
    } catch (DriverException.Failed e) {
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
          Agents.Deadline _ = around.agents().deadline(connection, WRITE_FILE)) {
        connection.send(new Message.WriteFile(file.path(), 0644));
        byte[] bytes = file.bytes();
        for (int at = 0; at < bytes.length; at += Limits.CHUNK_BYTES) {
          int end = Math.min(bytes.length, at + Limits.CHUNK_BYTES);
          connection.send(new Message.Chunk(Arrays.copyOfRange(bytes, at, end)));
        }
        connection.send(new Message.ChunksEnd(bytes.length));
        if (!(connection.receive() instanceof Message.FileInfo)) {
          throw new IOException("the file '" + file.path() + "' was not written");
        }
      }
    }
  }

  /// Opens the way to the web under the policy that the sandbox started under.
  private void openEgress(Sandbox sandbox) throws IOException {
    var socket = around.driver().egressSocket(id);
    if (socket.isPresent()) {
      around.egress().open(id, socket.get(), rules(sandbox), flows);
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
    if (agentFailed) {
      fail(sandbox, "its agent failed");
      return;
    }
    if (expired(sandbox)) {
      expire(Phase.READY);
      return;
    }
    Optional<BackendState> state = around.driver().inspect(id, INSPECT);
    if (state.isEmpty() || state.get().status() != BackendState.Status.RUNNING) {
      String detail =
          state.map(BackendState::detail).filter(d -> !d.isEmpty()).orElse("it is not there");
      fail(sandbox, "its agent's process has ended: " + detail);
      return;
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

  /// After a restart: the gateway listens again, and calls that were done at once and had not ended
  /// are lost.
  private void adopt(Sandbox sandbox) throws DriverException {
    try {
      openEgress(sandbox);
    } catch (IOException e) {
      throw new DriverException.Failed("its egress socket cannot be opened: " + e.getMessage(), e);
    }
    for (Call call : around.store().liveCalls(id)) {
      if (!ToolNames.runs(call.tool())) {
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
                policy.maxResultBytes()),
            sandbox,
            call.id());
    Thread.ofVirtual()
        .name("call-" + call.id())
        .start(() -> {
          CallRunner.End end = CallRunner.End.STOPPED;
          try {
            end = runner.run();
          } finally {
            runners.remove(call.id());
            agentFailed |= end == CallRunner.End.AGENT_FAILED;
            wake();
          }
        });
    return runner;
  }

  private void waitForChange(Sandbox sandbox) throws InterruptedException {
    long untilExpiry =
        Duration.between(around.clock().instant(), sandbox.expiresAt()).toMillis() + 1;
    boolean _ = woken.tryAcquire(Math.clamp(untilExpiry, 1, WATCH_MILLIS), TimeUnit.MILLISECONDS);
    woken.drainPermits();
  }

  private boolean expired(Sandbox sandbox) {
    return !around.clock().instant().isBefore(sandbox.expiresAt());
  }

  private void expire(Phase from) {
    move(Set.of(from), Phase.STOPPING, "its time to live is over", Optional.empty(), List.of());
  }

  private void stop(Sandbox sandbox) throws DriverException {
    remove(CallStatus.CANCELLED, "the sandbox was destroyed: " + sandbox.reason());
    move(Set.of(Phase.STOPPING), Phase.GONE, sandbox.reason(), Optional.empty(), List.of());
  }

  private void fail(Sandbox sandbox, String reason) throws DriverException {
    LOG.warn("sandbox {}: failed: {}", id, reason);
    remove(
        sandbox.phase() == Phase.READY ? CallStatus.LOST : CallStatus.FAILED,
        "the sandbox failed: " + reason);
    move(Set.of(sandbox.phase()), Phase.FAILED, reason, Optional.empty(), List.of());
  }

  /// Removes all of it. First the calls' ends, then the backend: a reader learns how a call ended
  /// before it learns that the sandbox is gone.
  private void remove(CallStatus status, String reason) throws DriverException {
    stopRunners();
    for (Call call : around.store().liveCalls(id)) {
      end(call, status, reason);
    }
    around.driver().destroy(id, DESTROY);
    around.egress().close(id);
    flows.flush();
    // What was asked for between the two looks.
    for (Call call : around.store().liveCalls(id)) {
      end(call, status, reason);
    }
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
    long end = System.nanoTime() + STOP_RUNNERS.toNanos();
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
