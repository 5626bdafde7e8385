package dev.foredeck.agent;

import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.FramedConnection;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Message.FailureCode;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.concurrent.Semaphore;
import javax.net.ssl.SSLSocket;

/// Waits for the control plane to dial.
///
/// Whoever dials is untrusted until it has shown the deployment's certificate and said the
/// sandbox's token: at most [#PENDING] try at once, each has [#HELLO_MILLIS], and a failed one
/// keeps its place for a moment. Threads: one accepts, one virtual thread for each that dials.
final class Listener {
  static final int PENDING = 8;
  static final long HELLO_MILLIS = 5_000;
  private static final long REFUSED_PAUSE_MILLIS = 20;
  private static final long RETRY_MILLIS = 500;

  private final Settings.Reach.Listen settings;
  private final Greeter greeter;
  private final GatewayDialler.Pinned gateway;
  private final Semaphore pending = new Semaphore(PENDING);

  Listener(Settings.Reach.Listen settings, Greeter greeter, GatewayDialler.Pinned gateway) {
    this.settings = settings;
    this.greeter = greeter;
    this.gateway = gateway;
  }

  /// Serves for ever.
  void run() throws InterruptedException {
    while (true) {
      try (ServerSocket server = new ServerSocket()) {
        // Where it may be reused, a program of the sandbox can listen on the pod's own address
        // beside this, and gets what the control plane says to its agent.
        server.setReuseAddress(false);
        server.bind(new InetSocketAddress(settings.port()), 2 * PENDING);
        while (true) {
          Socket dialler = server.accept();
          if (!pending.tryAcquire()) {
            dialler.close();
            Thread.sleep(REFUSED_PAUSE_MILLIS);
            continue;
          }
          Thread _ = Thread.ofVirtual().start(() -> hear(dialler));
        }
      } catch (IOException e) {
        Log.warn("cannot listen for the control plane on port " + settings.port(), e);
      }
      Thread.sleep(RETRY_MILLIS);
    }
  }

  private void hear(Socket dialler) {
    boolean heard = false;
    try {
      dialler.setTcpNoDelay(true);
      SSLSocket tls = settings.pin().over(dialler);
      Connection connection =
          new FramedConnection(tls.getInputStream(), tls.getOutputStream(), dialler);
      heard = isTheControlPlane(connection, dialler);
      if (heard) {
        pending.release();
        greeter.admit(connection);
      }
    } catch (IOException _) {
      // It spoke no TLS, is not the deployment, or went away.
    } finally {
      if (!heard) {
        refuse(dialler);
      }
    }
  }

  private boolean isTheControlPlane(Connection connection, Socket dialler) throws IOException {
    Thread watchdog =
        Thread.ofVirtual()
            .start(() -> {
              try {
                Thread.sleep(HELLO_MILLIS);
                dialler.close();
              } catch (InterruptedException | IOException _) {
                // In time, or closed already.
              }
            });
    try {
      if (connection.receive() instanceof Message.Hello hello) {
        if (MessageDigest.isEqual(
            ascii(settings.tokenSha256()),
            ascii(sha256(hello.token().getBytes(StandardCharsets.UTF_8))))) {
          gateway.told(hello.gateway());
          return true;
        }
        Greeter.tell(
            connection, new Message.Failure(FailureCode.BAD_REQUEST, "not this sandbox's token"));
      }
      return false;
    } finally {
      watchdog.interrupt();
    }
  }

  private void refuse(Socket dialler) {
    try {
      dialler.close();
      Thread.sleep(REFUSED_PAUSE_MILLIS);
    } catch (IOException _) {
      // Closed is closed.
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    } finally {
      pending.release();
    }
  }

  private static byte[] ascii(String text) {
    return text.getBytes(StandardCharsets.US_ASCII);
  }

  static String sha256(byte[] bytes) {
    try {
      return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }
}
