package dev.foredeck.egress;

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
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// A unix socket that one sandbox alone can reach: who comes is known by where it comes. A thread
/// of its own accepts, at the sandbox's rate.
final class UnixListener {
  private static final Logger log = LoggerFactory.getLogger(UnixListener.class);

  /// `sun_path` less its terminating NUL.
  private static final int MAX_SOCKET_PATH = 107;

  private static final int BACKLOG = 128;
  private static final long ACCEPT_RETRY_MILLIS = 100;

  private final Path socket;
  private final SandboxEgress egress;
  private final ServerSocketChannel server;
  private final Thread acceptor;
  private volatile boolean stopped;

  private UnixListener(Path socket, SandboxEgress egress, ServerSocketChannel server) {
    this.socket = socket;
    this.egress = egress;
    this.server = server;
    this.acceptor =
        Thread.ofVirtual().name("egress-accept-" + socket.getFileName()).unstarted(this::accept);
  }

  /// @param socket a stale one is replaced
  /// @throws IOException where something other than a socket is there
  static UnixListener listen(Path socket, SandboxEgress egress) throws IOException {
    UnixListener listener = new UnixListener(socket, egress, bind(socket));
    listener.acceptor.start();
    return listener;
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

  private void accept() {
    while (!stopped) {
      try {
        if (!egress.awaitTurn()) {
          return;
        }
        SocketChannel client = server.accept();
        Optional<byte[]> refused = egress.serve(ByteConnection.of(client));
        if (refused.isPresent()) {
          refuse(client, refused.get());
        }
      } catch (ClosedChannelException | InterruptedException _) {
        return;
      } catch (IOException | RuntimeException e) {
        log.warn("{}: a connection could not be accepted: {}", socket, e.toString());
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

  /// Answers without a thread, a buffer or a request: the socket's own buffer takes the answer, and
  /// if it does not, the client goes without.
  private static void refuse(SocketChannel client, byte[] answer) throws IOException {
    try (client) {
      client.configureBlocking(false);
      client.write(ByteBuffer.wrap(answer));
      client.shutdownOutput();
    }
  }

  /// Stops listening and removes the socket. Does not wait.
  void stop() {
    stopped = true;
    try {
      server.close();
      Files.deleteIfExists(socket);
    } catch (IOException e) {
      log.warn("{}: the egress socket could not be removed: {}", socket, e.toString());
    }
  }

  /// Waits until no connection that came before [#stop] is still on its way to the sandbox's.
  void awaitEnd(long millis) {
    try {
      boolean _ = acceptor.join(Duration.ofMillis(millis));
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    }
  }
}
