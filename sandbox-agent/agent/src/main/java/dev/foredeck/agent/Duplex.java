package dev.foredeck.agent;

import dev.foredeck.protocol.ChannelStreams;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.Socket;
import java.nio.channels.SocketChannel;
import javax.net.ssl.SSLSocket;

/// A connection as two streams of bytes, each with an end of its own.
interface Duplex extends AutoCloseable {
  InputStream in();

  OutputStream out();

  /// The other side sees the end of what we send, and may go on sending.
  void endOutput() throws IOException;

  /// Closes both directions and frees whoever reads or writes. Idempotent.
  @Override
  void close();

  static Duplex of(SocketChannel channel) {
    return new Duplex() {
      private final InputStream in = ChannelStreams.input(channel);
      private final OutputStream out = ChannelStreams.output(channel);

      @Override
      public InputStream in() {
        return in;
      }

      @Override
      public OutputStream out() {
        return out;
      }

      @Override
      public void endOutput() throws IOException {
        SocketChannel _ = channel.shutdownOutput();
      }

      @Override
      public void close() {
        Duplex.close(channel);
      }
    };
  }

  /// @param raw what `tls` lies over: closed instead of it, whose own close waits for a writer
  static Duplex of(SSLSocket tls, Socket raw) throws IOException {
    InputStream in = tls.getInputStream();
    OutputStream out = tls.getOutputStream();
    return new Duplex() {
      @Override
      public InputStream in() {
        return in;
      }

      @Override
      public OutputStream out() {
        return out;
      }

      @Override
      public void endOutput() throws IOException {
        tls.shutdownOutput();
      }

      @Override
      public void close() {
        Duplex.close(raw);
      }
    };
  }

  private static void close(AutoCloseable transport) {
    try {
      transport.close();
    } catch (Exception _) {
      // Closed is closed.
    }
  }
}
