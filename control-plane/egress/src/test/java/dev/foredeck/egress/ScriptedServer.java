package dev.foredeck.egress;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/// A server on loopback that does with each connection what a test says, and keeps what it was
/// sent.
final class ScriptedServer implements AutoCloseable {
  interface Script {
    void serve(RawClient connection) throws IOException;
  }

  final LinkedBlockingQueue<String> received = new LinkedBlockingQueue<>();
  private final ServerSocketChannel server;
  private final Script script;

  ScriptedServer(Script script) throws IOException {
    this.script = script;
    server = ServerSocketChannel.open();
    server.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
    Thread.ofVirtual().start(this::accept);
  }

  /// Reads a request's head, then answers.
  static ScriptedServer answering(String answer) throws IOException {
    ScriptedServer[] self = new ScriptedServer[1];
    self[0] =
        new ScriptedServer(connection -> {
          self[0].received.add(connection.readUntil("\r\n\r\n"));
          connection.send(answer);
        });
    return self[0];
  }

  int port() {
    return server.socket().getLocalPort();
  }

  String nextRequest() throws InterruptedException {
    String request = received.poll(20, TimeUnit.SECONDS);
    if (request == null) {
      throw new AssertionError("no request within 20 s");
    }
    return request;
  }

  private void accept() {
    while (true) {
      try {
        SocketChannel accepted = server.accept();
        Thread.ofVirtual().start(() -> serve(accepted));
      } catch (ClosedChannelException _) {
        return;
      } catch (IOException e) {
        throw new IllegalStateException(e);
      }
    }
  }

  private void serve(SocketChannel accepted) {
    try (RawClient connection = new RawClient(accepted)) {
      script.serve(connection);
    } catch (IOException _) {
      received.add("broken");
    }
  }

  @Override
  public void close() throws IOException {
    server.close();
  }
}
