package dev.foredeck.core.gate;

import dev.foredeck.core.Hashes;
import dev.foredeck.core.Id;
import dev.foredeck.core.Patience;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.Driver.AgentConnection;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.protocol.Message;
import java.io.IOException;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;

/// The only way to a sandbox's agent. What comes back is untrusted: bounded by the codec, and every
/// answer has a deadline, because an agent that says nothing must not hold a thread of ours.
public final class Agents {
  private final Driver driver;
  private final byte[] deploymentKey;
  private final ScheduledExecutorService timer;
  private final Patience patience;
  private final Set<Id> untouched = ConcurrentHashMap.newKeySet();

  /// @param deploymentKey secret of this deployment, from which sandboxes' tokens are derived
  public Agents(Driver driver, byte[] deploymentKey, ScheduledExecutorService timer) {
    this(driver, deploymentKey, timer, Patience.DEFAULT);
  }

  public Agents(
      Driver driver, byte[] deploymentKey, ScheduledExecutorService timer, Patience patience) {
    this.patience = patience;
    this.driver = driver;
    this.deploymentKey = deploymentKey.clone();
    this.timer = timer;
  }

  /// What the agent of this sandbox must greet with.
  public String token(Id sandbox) {
    return Hashes.hmacSha256(deploymentKey, sandbox.value());
  }

  /// A greeted connection; the caller closes it.
  public AgentConnection open(Id sandbox) throws DriverException {
    AgentConnection agent = driver.connect(sandbox, token(sandbox), patience.connect());
    untouched.remove(sandbox);
    return agent;
  }

  /// From now on until a connection is opened [#untouched] says so: nothing has been asked of this
  /// sandbox by whoever it is for.
  public void markUntouched(Id sandbox) {
    untouched.add(sandbox);
  }

  /// Whether nobody has had a connection to the sandbox since it was marked, in this control
  /// plane's life. Then nothing can have run in it, and another one may take its place unnoticed.
  public boolean untouched(Id sandbox) {
    return untouched.contains(sandbox);
  }

  /// The sandbox is gone.
  public void forget(Id sandbox) {
    untouched.remove(sandbox);
  }

  /// One request, one answer.
  ///
  /// @throws IOException when the connection broke, or nothing came in time
  public Message ask(Id sandbox, Message.Request request, Duration timeout)
      throws DriverException, IOException {
    AgentConnection agent = open(sandbox);
    try (var connection = agent.connection();
        Deadline _ = deadline(connection, timeout)) {
      connection.send(request);
      Message answer = connection.receive();
      if (answer == null) {
        throw new IOException("the agent closed the connection without an answer");
      }
      return answer;
    }
  }

  /// Closes `closeable` unless the deadline is closed (or moved) before: how a blocked read is
  /// freed.
  public Deadline deadline(AutoCloseable closeable, Duration timeout) {
    return new Deadline(timer, closeable, timeout);
  }

  /// A running deadline.
  public static final class Deadline implements AutoCloseable {
    private final ScheduledExecutorService timer;
    private final AutoCloseable closeable;
    private final Duration timeout;
    private ScheduledFuture<?> pending;

    private Deadline(ScheduledExecutorService timer, AutoCloseable closeable, Duration timeout) {
      this.timer = timer;
      this.closeable = closeable;
      this.timeout = timeout;
      this.pending = schedule();
    }

    /// Starts the time again: there was progress.
    public void restart() {
      pending.cancel(false);
      pending = schedule();
    }

    @Override
    public void close() {
      pending.cancel(false);
    }

    private ScheduledFuture<?> schedule() {
      return timer.schedule(this::expire, timeout.toMillis(), TimeUnit.MILLISECONDS);
    }

    private void expire() {
      // Closing may block on a lock that a stuck writer holds: never on the timer's own thread.
      Thread.ofVirtual()
          .name("agent-deadline")
          .start(() -> {
            try {
              closeable.close();
            } catch (Exception e) {
              throw new IllegalStateException("a connection could not be closed", e);
            }
          });
    }
  }
}
