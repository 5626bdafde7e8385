package dev.foredeck.core.driver;

import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressPath;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message.Greeting;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/// A backend that makes sandboxes. Every verb is idempotent by sandbox id, blocks for at most
/// `timeout`, may be called by many threads, and survives a crash of the control plane at any
/// point: calling it again completes it.
public interface Driver extends AutoCloseable {

  /// `local`, `docker`, `kubernetes`, `simulated`.
  String name();

  /// Checks that what the driver promises is really enforced on this host. Until the last answer
  /// was without findings no sandbox is launched.
  ///
  /// @return one sentence for each promise that does not hold; empty when all hold
  List<String> probe(Duration timeout);

  /// The templates that [#launch] takes, as `host`.
  List<String> templates();

  /// Makes the sandbox, or completes what an earlier launch began; returns when the backend has
  /// started its agent (which may not have greeted yet).
  void launch(LaunchSpec spec, Duration timeout) throws DriverException;

  /// Ends the sandbox and removes all that was made for it. No error when nothing is there.
  void destroy(Id sandbox, Duration timeout) throws DriverException;

  /// What the backend says of one sandbox; empty when it knows nothing of it.
  Optional<BackendState> inspect(Id sandbox, Duration timeout) throws DriverException;

  /// Everything the backend has of ours, remains of half-made and half-destroyed sandboxes
  /// included.
  List<BackendState> list(Duration timeout) throws DriverException;

  /// Takes a greeted connection to the sandbox's agent, waiting for one. The driver has checked the
  /// token and the protocol range; a connection whose greeting is wrong or late is closed and never
  /// handed out.
  ///
  /// @throws DriverException.NotThere as soon as the backend knows that the agent's process is gone
  AgentConnection connect(Id sandbox, String token, Duration timeout) throws DriverException;

  /// How the sandbox's bridge reaches the egress gateway, known once [#launch] has returned; empty
  /// where the backend gives no way to the web at all.
  ///
  /// @param token the sandbox's
  Optional<EgressPath> egressPath(Id sandbox, String token);

  /// Stops watching and listening. Leaves every sandbox running.
  @Override
  void close();

  /// A greeted connection.
  record AgentConnection(Greeting greeting, Connection connection) {}
}
