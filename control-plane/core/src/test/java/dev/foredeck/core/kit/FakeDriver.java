package dev.foredeck.core.kit;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.core.egress.EgressPath;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.LoopbackConnection;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Wire.MalformedMessageException;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.jspecify.annotations.Nullable;

/// One control plane's handle on a [FakeBackend], with a [Fault] at every point.
public final class FakeDriver implements Driver {
  private final FakeBackend backend;
  private final Set<Guarded> open = ConcurrentHashMap.newKeySet();
  private volatile Fault fault;
  private volatile boolean cut;

  public FakeDriver(FakeBackend backend, Fault fault) {
    this.backend = backend;
    this.fault = fault;
  }

  public void fault(Fault next) {
    fault = next;
  }

  @Override
  public String name() {
    return "fake";
  }

  @Override
  public List<String> probe(Duration timeout) {
    return List.of();
  }

  @Override
  public List<String> templates() {
    return List.of("host");
  }

  @Override
  public void launch(LaunchSpec spec, Duration timeout) throws DriverException {
    fault.at("launch.before");
    backend.prepare(spec);
    fault.at("launch.half");
    backend.start(spec);
    fault.at("launch.after");
  }

  @Override
  public void destroy(Id sandbox, Duration timeout) throws DriverException {
    fault.at("destroy.before");
    backend.stop(sandbox);
    fault.at("destroy.half");
    backend.remove(sandbox);
    fault.at("destroy.after");
  }

  @Override
  public Optional<BackendState> inspect(Id sandbox, Duration timeout) throws DriverException {
    fault.at("inspect");
    return backend.state(sandbox);
  }

  @Override
  public List<BackendState> list(Duration timeout) throws DriverException {
    fault.at("list");
    return backend.states();
  }

  @Override
  public AgentConnection connect(Id sandbox, String token, Duration timeout)
      throws DriverException {
    fault.at("connect");
    FakeAgent agent =
        backend
            .living(sandbox)
            .orElseThrow(() -> new DriverException.NotThere("its agent is not there"));
    LoopbackConnection.Pair pair = LoopbackConnection.pair();
    String known = backend.spec(sandbox).token();
    Thread.ofVirtual().name("agent-" + sandbox).start(() -> agent.serve(pair.right(), known));
    Guarded connection = new Guarded(pair.left());
    open.add(connection);
    try {
      if (cut) {
        throw new IOException("the control plane is gone");
      }
      if (connection.receive() instanceof Message.Greeting greeting
          && greeting.token().equals(token)) {
        return new AgentConnection(greeting, connection);
      }
      throw new IOException("no greeting, or a wrong one");
    } catch (IOException e) {
      connection.close();
      throw new DriverException.Failed("the agent did not greet: " + e.getMessage(), e);
    }
  }

  @Override
  public Optional<EgressPath> egressPath(Id sandbox, String token) {
    return Optional.of(
        new EgressPath.UnixSocket(Path.of("/nowhere", sandbox.value(), "egress.sock")));
  }

  /// What the kernel does to the connections of a process that dies.
  public void cutConnections() {
    cut = true;
    open.forEach(Guarded::close);
  }

  @Override
  public void close() {}

  /// The control plane's end: every send is a point to die at.
  private final class Guarded implements Connection {
    /// A message with this text, sent by a [FakeAgent.Liar], is a broken frame.
    private static final String BROKEN = "broken frame";

    private final Connection inner;

    Guarded(Connection inner) {
      this.inner = inner;
    }

    @Override
    public void send(Message message) throws IOException {
      String name = message.getClass().getSimpleName();
      try {
        fault.at("send.before." + name);
        inner.send(message);
        fault.at("send.after." + name);
      } catch (DriverException e) {
        throw new IOException(e);
      }
    }

    @Override
    public @Nullable Message receive() throws IOException {
      Message message = inner.receive();
      if (message instanceof Message.Failure failure && failure.message().equals(BROKEN)) {
        throw new MalformedMessageException("a frame of 4294967295 bytes");
      }
      return message;
    }

    @Override
    public void close() {
      open.remove(this);
      inner.close();
    }
  }
}
