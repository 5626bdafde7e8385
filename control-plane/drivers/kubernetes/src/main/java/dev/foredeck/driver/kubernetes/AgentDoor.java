package dev.foredeck.driver.kubernetes;

import dev.foredeck.core.DeploymentTls;
import dev.foredeck.core.Id;
import dev.foredeck.core.driver.Driver.AgentConnection;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.Watchdog;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.FramedConnection;
import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.Message;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.StandardSocketOptions;
import java.time.Duration;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import javax.net.ssl.SSLSocket;
import jdk.net.ExtendedSocketOptions;

/// Dials agents: a TCP connection, on which the control plane plays the TLS server with the
/// deployment's certificate and says the token, and the agent greets.
///
/// Threading: any. What is being dialled, and what was handed out, can be given up from outside
/// ([#giveUp]): a pod that has ended says no word more to whoever reads from it.
final class AgentDoor {
  private static final Duration GREETING = Duration.ofSeconds(5);

  /// A connection on which nothing comes is asked whether it still is one, and given up after
  /// another such time: a network that is away for half a minute breaks none.
  private static final int QUIET_SECONDS = 30;

  private static final int TRIES = 3;

  private final DeploymentTls tls;
  private final Map<Id, Set<Socket>> open = new ConcurrentHashMap<>();

  AgentDoor(DeploymentTls tls) {
    this.tls = tls;
  }

  /// One try.
  ///
  /// @throws IOException when nobody greeted: trying again may help
  /// @throws DriverException.Refused when the agent does not take the token
  AgentConnection dial(
      Id sandbox, InetSocketAddress address, Message.Hello hello, Deadline deadline)
      throws IOException, DriverException.Refused {
    Socket socket = new Socket();
    enter(sandbox, socket);
    boolean greeted = false;
    try {
      Deadline own = deadline.atMost(GREETING);
      try (Watchdog _ =
          Watchdog.after(Duration.ofNanos(own.remainingNanos()), () -> close(socket))) {
        socket.setTcpNoDelay(true);
        // The node may vanish without a word.
        Socket _ = socket.setOption(StandardSocketOptions.SO_KEEPALIVE, true);
        Socket _ = socket.setOption(ExtendedSocketOptions.TCP_KEEPIDLE, QUIET_SECONDS);
        Socket _ = socket.setOption(ExtendedSocketOptions.TCP_KEEPINTERVAL, QUIET_SECONDS / TRIES);
        Socket _ = socket.setOption(ExtendedSocketOptions.TCP_KEEPCOUNT, TRIES);
        socket.connect(address);
        AgentConnection agent = greet(sandbox, socket, hello);
        greeted = true;
        return agent;
      }
    } finally {
      if (!greeted) {
        end(sandbox, socket);
      }
    }
  }

  private AgentConnection greet(Id sandbox, Socket socket, Message.Hello hello)
      throws IOException, DriverException.Refused {
    SSLSocket secured = tls.over(socket);
    Connection connection =
        new FramedConnection(
            secured.getInputStream(), secured.getOutputStream(), () -> end(sandbox, socket));
    connection.send(hello);
    return switch (connection.receive()) {
      case Message.Greeting greeting when speaksOurs(greeting) ->
          new AgentConnection(greeting, connection);
      case Message.Greeting greeting ->
          throw new DriverException.Refused(
              "the agent speaks protocol "
                  + greeting.protocolMin()
                  + " to "
                  + greeting.protocolMax()
                  + ", we speak "
                  + Limits.PROTOCOL_MIN
                  + " to "
                  + Limits.PROTOCOL_MAX);
      case Message.Failure failure when failure.code() == Message.FailureCode.BAD_REQUEST ->
          throw new DriverException.Refused("the agent does not take this token");
      case Message.Failure failure ->
          throw new IOException("the agent is busy: " + PodView.text(failure.message()));
      case null -> throw new IOException("the agent closed the connection");
      case Message other ->
          throw new IOException("no greeting but " + other.getClass().getSimpleName());
    };
  }

  private static boolean speaksOurs(Message.Greeting greeting) {
    return greeting.protocolMin() <= Limits.PROTOCOL_MAX
        && greeting.protocolMax() >= Limits.PROTOCOL_MIN;
  }

  private void enter(Id sandbox, Socket socket) {
    open.compute(
        sandbox,
        (_, sockets) -> {
          Set<Socket> all = sockets == null ? new HashSet<>() : sockets;
          all.add(socket);
          return all;
        });
  }

  private void end(Id sandbox, Socket socket) {
    leave(sandbox, socket);
    close(socket);
  }

  private void leave(Id sandbox, Socket socket) {
    open.computeIfPresent(
        sandbox,
        (_, sockets) -> {
          sockets.remove(socket);
          return sockets.isEmpty() ? null : sockets;
        });
  }

  /// Ends every connection to this sandbox, and every try for one.
  void giveUp(Id sandbox) {
    open.computeIfPresent(
        sandbox,
        (_, sockets) -> {
          sockets.forEach(AgentDoor::close);
          return sockets;
        });
  }

  /// Ends all of them.
  void giveUpAll() {
    open.keySet().forEach(this::giveUp);
  }

  private static void close(Socket socket) {
    try {
      socket.close();
    } catch (IOException _) {
      // Closed is closed.
    }
  }
}
