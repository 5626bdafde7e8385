package dev.foredeck.driver.host;

import dev.foredeck.core.Hashes;
import dev.foredeck.core.driver.Driver.AgentConnection;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.FramedConnection;
import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.Message.Greeting;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Optional;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Listens where one sandbox's agent dials, and keeps the connections that have greeted well until
/// somebody takes them.
///
/// Whoever dials is untrusted until its greeting was checked: at most [#PENDING] dial at once, each
/// has [#GREETING_MILLIS] to greet, and after a bad one the door stays shut for a moment. Threads:
/// one virtual thread accepts, one per dialler reads its greeting; `spare` and `open` are guarded
/// by `lock`.
public final class AgentSocket implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(AgentSocket.class);
  public static final int PENDING = 8;
  public static final int SPARE = 4;
  public static final long GREETING_MILLIS = 5_000;
  private static final long REFUSED_PAUSE_MILLIS = 20;

  private final Path path;
  private final byte[] tokenHash;
  private final ServerSocketChannel server;
  private final Semaphore pending = new Semaphore(PENDING);
  private final AtomicLong refused = new AtomicLong();
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final Deque<AgentConnection> spare = new ArrayDeque<>();
  private boolean open = true;

  private AgentSocket(Path path, byte[] tokenHash, ServerSocketChannel server) {
    this.path = path;
    this.tokenHash = tokenHash;
    this.server = server;
  }

  /// Listens at `path`, in the place of whoever listened there before.
  public static AgentSocket listen(Path path, byte[] tokenHash) throws IOException {
    // Bound aside and renamed: at no moment is there a socket that refuses the agent.
    Path aside = path.resolveSibling(path.getFileName() + ".new");
    Files.deleteIfExists(aside);
    ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    try {
      server.bind(UnixDomainSocketAddress.of(aside), PENDING);
      // Everybody may connect who gets here: the folder above admits root alone, and the sandbox
      // that it is mounted in.
      Files.setPosixFilePermissions(aside, PosixFilePermissions.fromString("rw-rw-rw-"));
      Files.move(aside, path, StandardCopyOption.ATOMIC_MOVE);
    } catch (IOException e) {
      server.close();
      throw e;
    }
    AgentSocket socket = new AgentSocket(path, tokenHash, server);
    Thread.ofVirtual().name("accept " + path).start(socket::accept);
    return socket;
  }

  /// Whether it is the token that the sandbox was launched with.
  public boolean isFor(String token) {
    return MessageDigest.isEqual(
        tokenHash, Hashes.sha256Bytes(token.getBytes(StandardCharsets.UTF_8)));
  }

  /// Takes a greeted connection, waiting for at most `millis`.
  public Optional<AgentConnection> take(long millis) throws InterruptedException {
    long nanos = TimeUnit.MILLISECONDS.toNanos(millis);
    lock.lockInterruptibly();
    try {
      while (true) {
        AgentConnection connection = spare.poll();
        if (connection != null) {
          return Optional.of(connection);
        }
        if (!open || nanos <= 0) {
          return Optional.empty();
        }
        nanos = changed.awaitNanos(nanos);
      }
    } finally {
      lock.unlock();
    }
  }

  public boolean isOpen() {
    lock.lock();
    try {
      return open;
    } finally {
      lock.unlock();
    }
  }

  /// How many diallers were turned away.
  public long refused() {
    return refused.get();
  }

  private void accept() {
    while (isOpen()) {
      try {
        SocketChannel channel = server.accept();
        if (!pending.tryAcquire()) {
          channel.close();
          refuse("too many at once");
          Thread.sleep(REFUSED_PAUSE_MILLIS);
          continue;
        }
        Thread.ofVirtual()
            .name("greeting " + path)
            .start(() -> {
              try {
                greet(channel);
              } finally {
                pending.release();
              }
            });
      } catch (IOException e) {
        if (isOpen()) {
          // Out of file descriptors, most likely: the agent dials again, and so do we.
          LOG.warn("cannot accept at {}: {}", path, e.toString());
          pause();
        }
      } catch (InterruptedException _) {
        return;
      }
    }
  }

  private void greet(SocketChannel channel) {
    Connection connection = FramedConnection.over(channel);
    Optional<Greeting> greeting = awaitGreeting(connection);
    if (greeting.isPresent()) {
      keep(new AgentConnection(greeting.get(), connection));
    } else {
      connection.close();
      // A workload that dials in a loop costs one greeting per pause and place.
      pause();
    }
  }

  private Optional<Greeting> awaitGreeting(Connection connection) {
    try (Watchdog _ = Watchdog.after(Duration.ofMillis(GREETING_MILLIS), connection::close)) {
      if (connection.receive() instanceof Greeting greeting) {
        Optional<String> fault = fault(greeting);
        if (fault.isEmpty()) {
          return Optional.of(greeting);
        }
        refuse(fault.get());
      } else {
        refuse("no greeting");
      }
    } catch (IOException e) {
      refuse(e.toString());
    }
    return Optional.empty();
  }

  private Optional<String> fault(Greeting greeting) {
    if (!isFor(greeting.token())) {
      return Optional.of("wrong token");
    }
    if (greeting.protocolMin() > Limits.PROTOCOL_MAX
        || greeting.protocolMax() < Limits.PROTOCOL_MIN) {
      return Optional.of(
          "speaks protocol "
              + greeting.protocolMin()
              + " to "
              + greeting.protocolMax()
              + ", we speak "
              + Limits.PROTOCOL_MIN
              + " to "
              + Limits.PROTOCOL_MAX);
    }
    return Optional.empty();
  }

  private void keep(AgentConnection connection) {
    AgentConnection surplus = null;
    lock.lock();
    try {
      if (open) {
        spare.add(connection);
        // The oldest is the one that the agent may have given up.
        surplus = spare.size() > SPARE ? spare.poll() : null;
        changed.signal();
      } else {
        surplus = connection;
      }
    } finally {
      lock.unlock();
    }
    if (surplus != null) {
      surplus.connection().close();
    }
  }

  private void refuse(String why) {
    if (isOpen()) {
      long count = refused.incrementAndGet();
      // One line for each power of two: a workload cannot fill the log.
      if ((count & (count - 1)) == 0) {
        LOG.warn("turned away {} at {} (number {})", why, path, count);
      }
    }
  }

  private static void pause() {
    try {
      Thread.sleep(REFUSED_PAUSE_MILLIS);
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    }
  }

  /// Stops listening and closes what nobody has taken. The socket file stays: the agent dials it in
  /// vain until somebody listens again.
  @Override
  public void close() {
    Deque<AgentConnection> left;
    lock.lock();
    try {
      open = false;
      left = new ArrayDeque<>(spare);
      spare.clear();
      changed.signalAll();
    } finally {
      lock.unlock();
    }
    try {
      server.close();
    } catch (IOException e) {
      LOG.debug("closing {}", path, e);
    }
    left.forEach(connection -> connection.connection().close());
  }
}
