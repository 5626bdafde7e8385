package dev.foredeck.driver.simulated;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.protocol.Channel;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import org.jspecify.annotations.Nullable;

/// The world behind the simulated driver: its sandboxes, their agents, and a count of what their
/// programs did. It outlives drivers, so that a simulation can let a control plane die and start
/// another one on the same world.
public final class SimulatedBackend {
  /// What was counted longest ago is forgotten beyond this.
  private static final int COUNTS = 100_000;

  /// @param agent null where a launch got only half way
  private record Sandbox(LaunchSpec spec, @Nullable SimulatedAgent agent) {}

  private final Pace pace;
  private final SplittableRandom random;
  private final int maxSandboxes;
  private final Map<Id, Sandbox> sandboxes = new ConcurrentHashMap<>();
  private final Map<String, Integer> starts = bounded();
  private final Map<String, Integer> effects = bounded();
  private volatile Faults faults = Faults.NONE;

  /// @param seed of the agents' boot ids
  public SimulatedBackend(Pace pace, long seed, int maxSandboxes) {
    this.pace = pace;
    this.random = new SplittableRandom(seed);
    this.maxSandboxes = maxSandboxes;
  }

  /// From now on.
  public void setFaults(Faults faults) {
    this.faults = faults;
  }

  /// How often a call's program was started, in all sandboxes and all lives of their agents. More
  /// than once is a bug of the control plane.
  public int timesStarted(String callId) {
    synchronized (starts) {
      return starts.getOrDefault(callId, 0);
    }
  }

  /// The most that any call's program was started.
  public int mostStarts() {
    synchronized (starts) {
      return starts.values().stream().mapToInt(Integer::intValue).max().orElse(0);
    }
  }

  /// How often `append FILE ...` or `touch FILE` was done in a sandbox.
  ///
  /// @param what as `append FILE`
  public int timesDone(Id sandbox, String what) {
    synchronized (effects) {
      return effects.getOrDefault(sandbox + " " + what, 0);
    }
  }

  /// Ends a sandbox's agent, as the kernel does when memory is short.
  public void endAgent(Id sandbox) {
    Sandbox there = sandboxes.get(sandbox);
    if (there != null && there.agent() != null) {
      there.agent().die();
    }
  }

  /// What the program `random SEED BYTES` prints on a channel.
  public static byte[] randomOutput(Channel channel, long seed, int bytes) {
    return Programs.randomOutput(channel, seed, bytes);
  }

  Pace pace() {
    return pace;
  }

  Faults faults() {
    return faults;
  }

  /// Makes the sandbox, or leaves it as it is.
  ///
  /// @param halfway without its agent
  void make(LaunchSpec spec, boolean halfway) throws DriverException {
    synchronized (sandboxes) {
      Sandbox known = sandboxes.get(spec.sandbox());
      if (known != null && known.agent() != null) {
        if (!known.agent().isAlive()) {
          throw new DriverException.Failed(
              "sandbox " + spec.sandbox() + " was launched before and its agent has ended");
        }
        return;
      }
      if (known == null && sandboxes.size() >= maxSandboxes) {
        throw new DriverException.Full(
            "the simulated backend has " + sandboxes.size() + " sandboxes");
      }
      sandboxes.put(spec.sandbox(), new Sandbox(spec, halfway ? null : agent(spec)));
    }
  }

  private SimulatedAgent agent(LaunchSpec spec) {
    return new SimulatedAgent(
        new UUID(random.nextLong(), random.nextLong()).toString(),
        spec.token(),
        new Workspace(spec.resources().diskBytes(), pace),
        pace,
        what -> count(effects, spec.sandbox() + " " + what),
        callId -> count(starts, callId));
  }

  /// @param halfway only its agent
  void remove(Id sandbox, boolean halfway) {
    Sandbox gone;
    synchronized (sandboxes) {
      gone = sandboxes.remove(sandbox);
      if (gone != null && halfway) {
        sandboxes.put(sandbox, new Sandbox(gone.spec(), null));
      }
    }
    if (gone != null && gone.agent() != null) {
      gone.agent().die();
    }
  }

  Optional<BackendState> state(Id sandbox) {
    Sandbox there = sandboxes.get(sandbox);
    if (there == null) {
      return Optional.empty();
    }
    if (there.agent() == null) {
      return Optional.of(
          new BackendState(
              sandbox, Status.REMAINS, "left by a launch or a destroy that was cut off"));
    }
    return Optional.of(
        there.agent().isAlive()
            ? new BackendState(sandbox, Status.RUNNING, "")
            : new BackendState(sandbox, Status.EXITED, "its agent has ended"));
  }

  List<BackendState> states() {
    List<BackendState> states = new ArrayList<>();
    for (Id id : sandboxes.keySet().stream().sorted().toList()) {
      state(id).ifPresent(states::add);
    }
    return states;
  }

  SimulatedAgent agent(Id sandbox) throws DriverException.NotThere {
    Sandbox there = sandboxes.get(sandbox);
    if (there == null || there.agent() == null) {
      throw new DriverException.NotThere("no sandbox " + sandbox);
    }
    if (!there.agent().isAlive()) {
      throw new DriverException.NotThere("the agent of sandbox " + sandbox + " has ended");
    }
    return there.agent();
  }

  String token(Id sandbox) throws DriverException.NotThere {
    Sandbox there = sandboxes.get(sandbox);
    if (there == null) {
      throw new DriverException.NotThere("no sandbox " + sandbox);
    }
    return there.spec().token();
  }

  private static void count(Map<String, Integer> counts, String what) {
    synchronized (counts) {
      counts.merge(what, 1, Integer::sum);
    }
  }

  private static Map<String, Integer> bounded() {
    return new LinkedHashMap<>() {
      private static final long serialVersionUID = 1L;

      @Override
      protected boolean removeEldestEntry(Map.Entry<String, Integer> eldest) {
        return size() > COUNTS;
      }
    };
  }
}
