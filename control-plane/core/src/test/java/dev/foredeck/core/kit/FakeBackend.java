package dev.foredeck.core.kit;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.protocol.Limits;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;

/// Where sandboxes are: what outlives the control plane.
public final class FakeBackend {
  private final Map<Id, FakeSandbox> sandboxes = new TreeMap<>();
  private final Map<String, Program> programs = new ConcurrentHashMap<>();
  private final List<FakeAgent> everyAgent = new CopyOnWriteArrayList<>();
  private int spoolBytes = Limits.SPOOL_BYTES;
  private int launched;

  /// @param agent empty while only remains exist
  private record FakeSandbox(LaunchSpec spec, Optional<FakeAgent> agent) {}

  public void program(String name, Program program) {
    programs.put(name, program);
  }

  public void spoolBytes(int bytes) {
    spoolBytes = bytes;
  }

  /// The first half of a launch: what a crash in its middle leaves.
  synchronized void prepare(LaunchSpec spec) {
    sandboxes.putIfAbsent(spec.sandbox(), new FakeSandbox(spec, Optional.empty()));
  }

  synchronized void start(LaunchSpec spec) {
    FakeSandbox there = sandboxes.get(spec.sandbox());
    if (there != null && there.agent().isPresent()) {
      return;
    }
    launched++;
    FakeAgent agent = new FakeAgent("boot" + launched, programs, spoolBytes);
    everyAgent.add(agent);
    sandboxes.put(spec.sandbox(), new FakeSandbox(spec, Optional.of(agent)));
  }

  /// The first half of a destroy: the agent ends, remains stay.
  synchronized void stop(Id sandbox) {
    FakeSandbox there = sandboxes.get(sandbox);
    if (there != null) {
      there.agent().ifPresent(FakeAgent::die);
      sandboxes.put(sandbox, new FakeSandbox(there.spec(), Optional.empty()));
    }
  }

  synchronized void remove(Id sandbox) {
    sandboxes.remove(sandbox);
  }

  synchronized Optional<BackendState> state(Id id) {
    return Optional.ofNullable(sandboxes.get(id)).map(sandbox -> state(id, sandbox));
  }

  private static BackendState state(Id id, FakeSandbox sandbox) {
    if (sandbox.agent().isEmpty()) {
      return new BackendState(id, BackendState.Status.REMAINS, "");
    }
    if (sandbox.agent().get().dead()) {
      return new BackendState(id, BackendState.Status.EXITED, "exit status 137");
    }
    return new BackendState(id, BackendState.Status.RUNNING, "");
  }

  public synchronized List<BackendState> states() {
    List<BackendState> states = new ArrayList<>();
    sandboxes.forEach((id, sandbox) -> states.add(state(id, sandbox)));
    return states;
  }

  synchronized Optional<FakeAgent> living(Id sandbox) {
    return Optional.ofNullable(sandboxes.get(sandbox))
        .flatMap(FakeSandbox::agent)
        .filter(agent -> !agent.dead());
  }

  public FakeAgent agent(Id sandbox) {
    return living(sandbox)
        .orElseThrow(() -> new AssertionError("no agent runs for sandbox " + sandbox));
  }

  public synchronized LaunchSpec spec(Id sandbox) {
    FakeSandbox there = sandboxes.get(sandbox);
    if (there == null) {
      throw new AssertionError("the backend has no sandbox " + sandbox);
    }
    return there.spec();
  }

  /// Something that no row knows.
  public void orphan(LaunchSpec spec) {
    prepare(spec);
    start(spec);
  }

  /// `kill -9` of a sandbox's agent.
  public void kill(Id sandbox) {
    agent(sandbox).die();
  }

  /// Every agent that ever ran, dead ones included.
  public List<FakeAgent> everyAgent() {
    return List.copyOf(everyAgent);
  }
}
