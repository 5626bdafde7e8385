package dev.foredeck.egress;

import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway.EgressRules;
import dev.foredeck.core.egress.EgressGateway.FlowRecorder;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// One sandbox's listener, its open connections, and what they share: rules, rate, totals. Bound
/// for good to one socket and one set of rules; opening again makes another.
///
/// Invariant: a connection is in `connections` from before its thread starts until its flow is in
/// the outbox, so that whoever waits for the set to empty has seen every flow.
final class SandboxEgress {
  private static final Logger log = LoggerFactory.getLogger(SandboxEgress.class);

  /// `sun_path` less its terminating NUL.
  private static final int MAX_SOCKET_PATH = 107;

  private static final int BACKLOG = 128;
  private static final long ACCEPT_RETRY_MILLIS = 100;

  private final Id sandbox;
  private final Path socket;
  private final EgressRules rules;
  private final FlowOutbox outbox;
  private final Surroundings around;
  private final AtomicLong totalBytes;
  private final ServerSocketChannel server;
  private final Throttle bytesPerSecond;
  private final Throttle connectionsPerSecond;
  private final Semaphore lookups;
  private final Set<Connection> connections = ConcurrentHashMap.newKeySet();
  private final Thread acceptor;
  private volatile boolean stopped;

  /// @param totalBytes moved so far; outlives this where the sandbox is opened again
  private SandboxEgress(
      Id sandbox,
      Path socket,
      EgressRules rules,
      FlowRecorder flows,
      Surroundings around,
      AtomicLong totalBytes,
      ServerSocketChannel server) {
    this.sandbox = sandbox;
    this.socket = socket;
    this.rules = rules;
    this.outbox = new FlowOutbox(sandbox.value(), flows, around.limits().pendingFlows());
    this.around = around;
    this.totalBytes = totalBytes;
    this.server = server;
    this.bytesPerSecond = new Throttle(around.limits().bytesPerSecond(), around.nanoTime());
    this.connectionsPerSecond =
        new Throttle(around.limits().connectionsPerSecond(), around.nanoTime());
    this.lookups = new Semaphore(around.limits().lookups());
    this.acceptor = Thread.ofVirtual().name("egress-accept-" + sandbox).unstarted(this::accept);
  }

  static SandboxEgress open(
      Id sandbox,
      Path socket,
      EgressRules rules,
      FlowRecorder flows,
      Surroundings around,
      AtomicLong totalBytes)
      throws IOException {
    SandboxEgress opened =
        new SandboxEgress(sandbox, socket, rules, flows, around, totalBytes, bind(socket));
    opened.acceptor.start();
    return opened;
  }

  private static ServerSocketChannel bind(Path socket) throws IOException {
    int length = socket.toString().getBytes(StandardCharsets.UTF_8).length;
    if (length > MAX_SOCKET_PATH) {
      throw new IOException(
          "the egress socket's path is "
              + length
              + " bytes; a unix socket's ends at "
              + MAX_SOCKET_PATH);
    }
    removeStale(socket);
    ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    try {
      server.bind(UnixDomainSocketAddress.of(socket), BACKLOG);
      // The sandbox's agent comes as a uid that this host does not know. Its folder keeps others
      // out.
      Files.setPosixFilePermissions(socket, PosixFilePermissions.fromString("rw-rw-rw-"));
      return server;
    } catch (IOException e) {
      server.close();
      throw e;
    }
  }

  /// Removes a socket that nobody owns any more, and nothing else.
  private static void removeStale(Path socket) throws IOException {
    if (!Files.exists(socket, LinkOption.NOFOLLOW_LINKS)) {
      return;
    }
    BasicFileAttributes found =
        Files.readAttributes(socket, BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS);
    if (!found.isOther()) {
      throw new IOException("there is something other than a socket at " + socket);
    }
    Files.deleteIfExists(socket);
  }

  Path socket() {
    return socket;
  }

  EgressRules rules() {
    return rules;
  }

  FlowOutbox outbox() {
    return outbox;
  }

  Surroundings around() {
    return around;
  }

  Semaphore lookups() {
    return lookups;
  }

  AtomicLong totalBytes() {
    return totalBytes;
  }

  private void accept() {
    while (!stopped) {
      try {
        if (!connectionsPerSecond.take(1)) {
          return;
        }
        SocketChannel client = server.accept();
        serve(client);
      } catch (ClosedChannelException | InterruptedException _) {
        return;
      } catch (IOException | RuntimeException e) {
        log.warn("{}: a connection could not be accepted: {}", sandbox, e.toString());
        if (!pause()) {
          return;
        }
      }
    }
  }

  private static boolean pause() {
    try {
      Thread.sleep(ACCEPT_RETRY_MILLIS);
      return true;
    } catch (InterruptedException _) {
      return false;
    }
  }

  private void serve(SocketChannel client) throws IOException {
    if (connections.size() >= around.limits().connections()) {
      refuse(client);
      return;
    }
    Connection connection = new Connection(this, client);
    connections.add(connection);
    Thread.ofVirtual().name("egress-" + sandbox).start(connection);
    if (stopped) {
      connection.abort("the sandbox's egress was closed");
    }
  }

  /// Answers without a thread, a buffer or a request: the socket's own buffer takes the answer, and
  /// if it does not, the client goes without.
  private void refuse(SocketChannel client) throws IOException {
    FlowTally tally = new FlowTally(around.nanoTime());
    Refusal refusal =
        Refusal.limit(
            503,
            "this sandbox has "
                + around.limits().connections()
                + " connections open, which is its limit");
    tally.refuse(refusal);
    try (client) {
      client.configureBlocking(false);
      client.write(ByteBuffer.wrap(Answers.refusal(refusal, "limit", "")));
      client.shutdownOutput();
    } finally {
      tally.take().ifPresent(outbox::add);
    }
  }

  /// Counts bytes that are about to move, and waits until the sandbox's rate allows them.
  void spend(FlowTally tally, long bytes) throws Refusal, IOException {
    EgressLimits limits = around.limits();
    if (tally.moved() + bytes > limits.bytesPerFlow()) {
      throw Refusal.limit(403, "the flow reached its limit of " + limits.bytesPerFlow() + " bytes");
    }
    if (totalBytes.addAndGet(bytes) > limits.bytesPerSandbox()) {
      totalBytes.addAndGet(-bytes);
      throw Refusal.limit(
          403, "the sandbox reached its limit of " + limits.bytesPerSandbox() + " bytes");
    }
    try {
      if (!bytesPerSecond.take(bytes)) {
        throw new ClosedChannelException();
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new ClosedChannelException();
    }
  }

  void ended(Connection connection) {
    connections.remove(connection);
  }

  /// Stops listening, removes the socket and ends the connections. Does not wait.
  void stop(String why) {
    stopped = true;
    try {
      server.close();
      Files.deleteIfExists(socket);
    } catch (IOException e) {
      log.warn("{}: the egress socket could not be removed: {}", sandbox, e.toString());
    }
    bytesPerSecond.close();
    connectionsPerSecond.close();
    for (Connection connection : connections) {
      connection.abort(why);
    }
  }

  /// Waits until every connection has ended and every flow is recorded.
  void drain(long millis) {
    try {
      long until = around.nanoTime().getAsLong() + Duration.ofMillis(millis).toNanos();
      acceptor.join(Duration.ofMillis(millis));
      for (Connection connection : connections) {
        long left = until - around.nanoTime().getAsLong();
        if (!connection.awaitEnd(Math.max(0, left))) {
          log.warn("{}: an egress connection did not end in time", sandbox);
          return;
        }
      }
      if (!outbox.drain(millis)) {
        log.warn("{}: flows were not recorded in time", sandbox);
      }
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    }
  }
}
