package dev.foredeck.egress;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.Channel;
import java.nio.channels.SocketChannel;

/// A two-way stream of bytes with a blocking reader and a blocking writer, as a socket is one and
/// TLS over a socket is another. One thread reads while one writes; any thread shuts or closes.
interface ByteConnection extends Channel {

  /// @return bytes read, -1 at the end of the stream
  int read(ByteBuffer into) throws IOException;

  /// Writes some of the parts, in their order; whoever wants all of them written calls again.
  void write(ByteBuffer... parts) throws IOException;

  /// The reader, also one that waits, finds the end of the stream. The writer goes on.
  void shutdownInput() throws IOException;

  /// The other side finds the end of the stream after what was written. The reader goes on.
  void shutdownOutput() throws IOException;

  /// Whether what was written may be lost where this is closed before the other side has ended.
  boolean lingers();

  /// Ends both directions at once and without waiting.
  @Override
  void close() throws IOException;

  /// @param channel connected and blocking; owned by the connection from here on
  static ByteConnection of(SocketChannel channel) {
    return new Plain(channel);
  }

  /// A socket as it is.
  record Plain(SocketChannel channel) implements ByteConnection {
    @Override
    public int read(ByteBuffer into) throws IOException {
      return channel.read(into);
    }

    @Override
    public void write(ByteBuffer... parts) throws IOException {
      long _ = channel.write(parts);
    }

    @Override
    public void shutdownInput() throws IOException {
      SocketChannel _ = channel.shutdownInput();
    }

    @Override
    public void shutdownOutput() throws IOException {
      SocketChannel _ = channel.shutdownOutput();
    }

    @Override
    public boolean lingers() {
      return false;
    }

    @Override
    public boolean isOpen() {
      return channel.isOpen();
    }

    @Override
    public void close() throws IOException {
      channel.close();
    }
  }
}
