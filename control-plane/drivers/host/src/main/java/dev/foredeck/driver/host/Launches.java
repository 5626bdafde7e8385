package dev.foredeck.driver.host;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.core.driver.Driver.AgentConnection;
import dev.foredeck.core.driver.DriverException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.jspecify.annotations.Nullable;

/// Which sandboxes of a driver are being launched, which process each launched one is, and the way
/// to its agent. Launching, recording and forgetting are done under the sandbox's lock; looking and
/// connecting need none. Whether a process lives is always asked of the kernel.
public final class Launches {
  /// Says of a sandbox whose process has ended how it ended, for a person.
  @FunctionalInterface
  public interface Ending {
    String of(Id sandbox) throws IOException;
  }

  private final HostPlaces places;
  private final AgentSockets sockets;
  private final long watchMillis;
  private final Ending ending;
  private final Set<Id> underWay = ConcurrentHashMap.newKeySet();

  /// What the records of launched sandboxes say, so that no connection reads one again.
  private final Map<Id, Records.Identity> processes = new ConcurrentHashMap<>();

  /// @param watchMillis while somebody waits for an agent, how often its process is looked at
  public Launches(HostPlaces places, AgentSockets sockets, long watchMillis, Ending ending) {
    this.places = places;
    this.sockets = sockets;
    this.watchMillis = watchMillis;
    this.ending = ending;
  }

  /// Does the work of a launch, unless it is done already.
  public void launch(Id sandbox, SandboxLocks.Work work) throws IOException, DriverException {
    Optional<Records.Identity> process = process(sandbox);
    if (process.isPresent()) {
      if (!process.get().isAlive()) {
        throw new DriverException.Failed(
            "sandbox " + sandbox + " was launched before and has ended: " + ending.of(sandbox));
      }
      sockets.listen(sandbox);
      return;
    }
    underWay.add(sandbox);
    try {
      work.run();
    } finally {
      underWay.remove(sandbox);
    }
  }

  /// The last step of a launch: from here on that process is the sandbox.
  public void record(Id sandbox, long pid) throws IOException, DriverException.Failed {
    OptionalLong startTicks = KernelTables.startTicks(pid);
    if (startTicks.isEmpty()) {
      throw new DriverException.Failed(
          "the agent of " + sandbox + " ended at once: " + ending.of(sandbox));
    }
    Records.writeProcess(
        places.folder(sandbox).process(),
        new Records.Identity(pid, startTicks.getAsLong(), KernelTables.bootId()));
  }

  /// Nothing of the sandbox is left.
  public void forget(Id sandbox) {
    processes.remove(sandbox);
  }

  /// The process of a sandbox that was launched, alive or not.
  public Optional<Records.Identity> process(Id sandbox) throws IOException {
    try {
      // Read and kept in one step: what is forgotten meanwhile is not kept.
      return Optional.ofNullable(processes.computeIfAbsent(sandbox, this::recorded));
    } catch (UncheckedIOException e) {
      throw e.getCause();
    }
  }

  private Records.@Nullable Identity recorded(Id sandbox) {
    try {
      return Records.readProcess(places.folder(sandbox).process()).orElse(null);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /// What can be said without the runtime; empty where the sandbox was never launched as a whole.
  public Optional<BackendState> state(Id sandbox) throws IOException {
    if (underWay.contains(sandbox)) {
      return Optional.of(new BackendState(sandbox, Status.STARTING, ""));
    }
    Optional<Records.Identity> process = process(sandbox);
    if (process.isEmpty()) {
      return Optional.empty();
    }
    return Optional.of(
        process.get().isAlive()
            ? new BackendState(sandbox, Status.RUNNING, "")
            : new BackendState(sandbox, Status.EXITED, ending.of(sandbox)));
  }

  /// Of a sandbox without such a state, of which something is there.
  public static BackendState remains(Id sandbox) {
    return new BackendState(
        sandbox, Status.REMAINS, "left by a launch or a destroy that was cut off");
  }

  /// Waits until the sandbox's agent has greeted.
  public AgentConnection connect(Id sandbox, String token, Deadline deadline)
      throws DriverException {
    try {
      while (true) {
        checkAlive(sandbox);
        AgentSocket socket = sockets.listen(sandbox);
        if (!socket.isFor(token)) {
          throw new DriverException.Refused("this is not the token of sandbox " + sandbox);
        }
        long millis = Math.clamp(deadline.remainingNanos() / 1_000_000, 1, watchMillis);
        Optional<AgentConnection> connection = socket.take(millis);
        if (connection.isPresent()) {
          return connection.get();
        }
        if (deadline.passed()) {
          throw new DriverException.Failed(
              "the agent of sandbox " + sandbox + " did not greet in time");
        }
      }
    } catch (IOException e) {
      throw SandboxLocks.failed("connect to " + sandbox, e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new DriverException.Failed("interrupted while waiting for " + sandbox, e);
    }
  }

  private void checkAlive(Id sandbox) throws IOException, DriverException.NotThere {
    Optional<Records.Identity> process = process(sandbox);
    if (process.isEmpty() && !underWay.contains(sandbox)) {
      throw new DriverException.NotThere("no sandbox " + sandbox + " is launched");
    }
    if (process.isPresent() && !process.get().isAlive()) {
      throw new DriverException.NotThere("sandbox " + sandbox + ": " + ending.of(sandbox));
    }
  }
}
