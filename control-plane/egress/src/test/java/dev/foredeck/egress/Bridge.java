package dev.foredeck.egress;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;

/// What the agent does inside a sandbox: a TCP port that leads to the gateway, so that real clients
/// can use it.
final class Bridge implements AutoCloseable {
  private final ServerSocketChannel server;
  private final GatewayFixture fixture;

  Bridge(GatewayFixture fixture) throws IOException {
    this.fixture = fixture;
    server = ServerSocketChannel.open();
    server.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
    Thread.ofVirtual().start(this::accept);
  }

  InetSocketAddress address() {
    return new InetSocketAddress(InetAddress.getLoopbackAddress(), server.socket().getLocalPort());
  }

  private void accept() {
    while (true) {
      try {
        ByteConnection client = ByteConnection.of(server.accept());
        ByteConnection gateway = fixture.dial();
        Thread.ofVirtual().start(() -> copy(client, gateway));
        Thread.ofVirtual().start(() -> copy(gateway, client));
      } catch (ClosedChannelException _) {
        return;
      } catch (IOException e) {
        throw new IllegalStateException(e);
      }
    }
  }

  private static void copy(ByteConnection from, ByteConnection to) {
    ByteBuffer buffer = ByteBuffer.allocateDirect(64 * 1024);
    try {
      while (from.read(buffer) >= 0) {
        buffer.flip();
        while (buffer.hasRemaining()) {
          to.write(buffer);
        }
        buffer.clear();
      }
      to.shutdownOutput();
    } catch (IOException _) {
      try {
        from.close();
        to.close();
      } catch (IOException e) {
        throw new IllegalStateException(e);
      }
    }
  }

  @Override
  public void close() throws IOException {
    server.close();
  }
}
