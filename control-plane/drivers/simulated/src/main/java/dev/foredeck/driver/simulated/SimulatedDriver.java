package dev.foredeck.driver.simulated;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.core.egress.EgressPath;
import dev.foredeck.driver.simulated.Faults.AgentFault;
import dev.foredeck.driver.simulated.Faults.Occasion;
import dev.foredeck.driver.simulated.Faults.VerbFault;
import dev.foredeck.policy.Boundary;
import dev.foredeck.policy.Isolation;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.Message.Greeting;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.jspecify.annotations.Nullable;

/// The driver of a [SimulatedBackend]. Holds nothing but the connections that it handed out, which
/// end with it, as those of a control plane that dies.
public final class SimulatedDriver implements Driver {
  /// The name that the other drivers have it under, so that requests run on either.
  private static final String TEMPLATE = "host";

  private static final List<String> WRITABLE =
      List.of("/workspace", "/tmp", "/var/tmp", "/dev/shm");
  private static final long GREETING_MILLIS = 5_000;
  private static final long PAUSE_MILLIS = 20;

  private final SimulatedBackend backend;
  private final Set<Connection> handedOut = ConcurrentHashMap.newKeySet();
  private volatile boolean closed;

  public SimulatedDriver(SimulatedBackend backend) {
    this.backend = backend;
  }

  @Override
  public String name() {
    return "simulated";
  }

  /// It promises no isolation, hence there is none to prove.
  @Override
  public List<String> probe(Duration timeout) {
    return List.of();
  }

  @Override
  public List<String> templates() {
    return List.of(TEMPLATE);
  }

  @Override
  public void launch(LaunchSpec spec, Duration timeout) throws DriverException {
    Id id = spec.sandbox();
    if (!spec.template().equals(TEMPLATE)) {
      throw new DriverException.Refused(
          "the simulated driver has no template " + spec.template() + ", only " + TEMPLATE);
    }
    check(spec.boundary());
    delay(Occasion.LAUNCH, id);
    VerbFault fault = backend.faults().onLaunch(id);
    before(fault, "launch " + id, timeout);
    backend.make(spec, fault == VerbFault.FAILS_HALFWAY);
    after(fault, "launch " + id);
  }

  @Override
  public void destroy(Id sandbox, Duration timeout) throws DriverException {
    delay(Occasion.DESTROY, sandbox);
    VerbFault fault = backend.faults().onDestroy(sandbox);
    before(fault, "destroy " + sandbox, timeout);
    backend.remove(sandbox, fault == VerbFault.FAILS_HALFWAY);
    after(fault, "destroy " + sandbox);
  }

  private void before(VerbFault fault, String doing, Duration timeout) throws DriverException {
    switch (fault) {
      case NONE, FAILS_HALFWAY, ANSWER_LOST -> {}
      case FAILS -> throw new DriverException.Failed("simulated: cannot " + doing);
      case FULL -> throw new DriverException.Full("simulated: no room to " + doing);
      case HANGS -> {
        sleep(timeout.toMillis());
        throw new DriverException.Failed("simulated: did not " + doing + " in time");
      }
    }
    requireOpen();
  }

  private static void after(VerbFault fault, String doing) throws DriverException {
    switch (fault) {
      case FAILS_HALFWAY, ANSWER_LOST ->
          throw new DriverException.Failed("simulated: no answer to " + doing);
      case NONE, FAILS, FULL, HANGS -> {}
    }
  }

  /// Refuses what the other drivers could not enforce either, for the same reasons.
  private static void check(Boundary boundary) throws DriverException.Refused {
    if (boundary.isolation() == Isolation.STRONG) {
      throw new DriverException.Refused(
          "the simulated driver cannot give isolation strong: it isolates nothing");
    }
    for (String path : boundary.readWrite()) {
      if (WRITABLE.stream().noneMatch(Path.of(path)::startsWith)) {
        throw new DriverException.Refused(
            "the simulated driver cannot make " + path + " writable, only " + WRITABLE);
      }
    }
    for (String path : boundary.readOnly()) {
      if (WRITABLE.stream().anyMatch(Path.of(path)::startsWith)) {
        throw new DriverException.Refused(
            "the simulated driver cannot keep " + path + " read-only");
      }
    }
  }

  @Override
  public Optional<BackendState> inspect(Id sandbox, Duration timeout) throws DriverException {
    requireOpen();
    return backend.state(sandbox);
  }

  @Override
  public List<BackendState> list(Duration timeout) throws DriverException {
    requireOpen();
    return backend.states();
  }

  @Override
  public AgentConnection connect(Id sandbox, String token, Duration timeout)
      throws DriverException {
    if (!MessageDigest.isEqual(
        backend.token(sandbox).getBytes(StandardCharsets.UTF_8),
        token.getBytes(StandardCharsets.UTF_8))) {
      throw new DriverException.Refused("this is not the token of sandbox " + sandbox);
    }
    delay(Occasion.CONNECT, sandbox);
    long began = backend.pace().millis();
    while (true) {
      requireOpen();
      SimulatedAgent agent = backend.agent(sandbox);
      AgentFault fault = backend.faults().onConnect(sandbox);
      long left = timeout.toMillis() - (backend.pace().millis() - began);
      Greeting greeting = null;
      Connection connection = agent.dial();
      if (fault == AgentFault.NEVER_GREETS) {
        sleep(Math.min(GREETING_MILLIS, left));
      } else {
        greeting = greeting(connection, fault);
      }
      if (greeting != null && isGood(greeting, token)) {
        return handOut(sandbox, agent, greeting, connection, fault);
      }
      connection.close();
      if (backend.pace().millis() - began >= timeout.toMillis()) {
        throw new DriverException.Failed(
            "the agent of sandbox " + sandbox + " did not greet in time");
      }
      sleep(PAUSE_MILLIS);
    }
  }

  private static @Nullable Greeting greeting(Connection connection, AgentFault fault) {
    try {
      if (!(connection.receive() instanceof Greeting said)) {
        return null;
      }
      return switch (fault) {
        case UNKNOWN_VERSION ->
            new Greeting(
                Limits.PROTOCOL_MAX + 1,
                Limits.PROTOCOL_MAX + 2,
                said.bootId(),
                said.token(),
                said.agentVersion());
        case WRONG_TOKEN ->
            new Greeting(
                said.protocolMin(), said.protocolMax(), said.bootId(), "", said.agentVersion());
        case NONE,
            NEVER_GREETS,
            NEVER_ANSWERS,
            OVERSIZED_MESSAGE,
            OFFSET_TOO_HIGH,
            OFFSET_TOO_LOW,
            DROPS_CONNECTION,
            DIES ->
            said;
      };
    } catch (IOException _) {
      return null;
    }
  }

  private static boolean isGood(Greeting greeting, String token) {
    return greeting.token().equals(token)
        && greeting.protocolMin() <= Limits.PROTOCOL_MAX
        && greeting.protocolMax() >= Limits.PROTOCOL_MIN;
  }

  private AgentConnection handOut(
      Id sandbox, SimulatedAgent agent, Greeting greeting, Connection connection, AgentFault fault)
      throws DriverException {
    Connection handed =
        new FaultyConnection(connection, fault, agent::die, () -> handedOut.remove(connection));
    handedOut.add(connection);
    if (closed) {
      handed.close();
    }
    requireOpen();
    delay(Occasion.START, sandbox);
    return new AgentConnection(greeting, handed);
  }

  @Override
  public Optional<EgressPath> egressPath(Id sandbox, String token) {
    return Optional.empty();
  }

  /// Its connections end, as when the control plane's process does. Verbs fail from here on.
  @Override
  public void close() {
    closed = true;
    handedOut.forEach(Connection::close);
    handedOut.clear();
  }

  private void requireOpen() throws DriverException.Failed {
    if (closed) {
      throw new DriverException.Failed("this control plane has ended");
    }
  }

  private void delay(Occasion occasion, Id sandbox) throws DriverException.Failed {
    requireOpen();
    long millis = backend.faults().latencyMillis(occasion, sandbox);
    if (millis > 0) {
      sleep(millis);
    }
  }

  private void sleep(long millis) throws DriverException.Failed {
    try {
      backend.pace().sleep(millis);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new DriverException.Failed("interrupted", e);
    }
  }
}
