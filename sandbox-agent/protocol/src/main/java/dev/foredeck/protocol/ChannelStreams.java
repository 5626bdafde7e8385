package dev.foredeck.protocol;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.util.Objects;

/// A blocking channel's two directions as streams. Those of [java.nio.channels.Channels] share a
/// lock between reading and writing on some channels; these do not, and bound the native buffer
/// that a heap array is copied to.
public final class ChannelStreams {
  private ChannelStreams() {}

  public static InputStream input(SocketChannel channel) {
    return new ChannelInput(channel);
  }

  public static OutputStream output(SocketChannel channel) {
    return new ChannelOutput(channel);
  }

  private static final class ChannelInput extends InputStream {
    private static final int PIECE_BYTES = Limits.CHUNK_BYTES;
    private final SocketChannel channel;

    ChannelInput(SocketChannel channel) {
      this.channel = channel;
    }

    @Override
    public int read() throws IOException {
      byte[] one = new byte[1];
      return read(one, 0, 1) < 0 ? -1 : Byte.toUnsignedInt(one[0]);
    }

    @Override
    public int read(byte[] bytes, int offset, int length) throws IOException {
      Objects.checkFromIndexSize(offset, length, bytes.length);
      return length == 0
          ? 0
          : channel.read(ByteBuffer.wrap(bytes, offset, Math.min(length, PIECE_BYTES)));
    }
  }

  private static final class ChannelOutput extends OutputStream {
    /// A full `Output` frame fits in one write.
    private static final int PIECE_BYTES = 2 * Limits.CHUNK_BYTES;

    private final SocketChannel channel;

    ChannelOutput(SocketChannel channel) {
      this.channel = channel;
    }

    @Override
    public void write(int value) throws IOException {
      write(new byte[] {(byte) value}, 0, 1);
    }

    @Override
    public void write(byte[] bytes, int offset, int length) throws IOException {
      Objects.checkFromIndexSize(offset, length, bytes.length);
      int done = 0;
      while (done < length) {
        int piece = Math.min(length - done, PIECE_BYTES);
        done += channel.write(ByteBuffer.wrap(bytes, offset + done, piece));
      }
    }
  }
}
