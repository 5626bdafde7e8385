package dev.foredeck.egress;

import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.net.SocketException;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;

/// A client that sends what it is told, well formed or not.
final class RawClient implements AutoCloseable {
  final ByteConnection channel;

  RawClient(SocketChannel channel) {
    this(ByteConnection.of(channel));
  }

  RawClient(ByteConnection channel) {
    this.channel = channel;
  }

  /// A message head: its lines, and the empty one.
  static String head(String... lines) {
    return String.join("\r\n", lines) + "\r\n\r\n";
  }

  void send(String text) throws IOException {
    send(text.getBytes(StandardCharsets.ISO_8859_1));
  }

  void send(byte[] bytes) throws IOException {
    ByteBuffer buffer = ByteBuffer.wrap(bytes);
    while (buffer.hasRemaining()) {
      channel.write(buffer);
    }
  }

  /// Reads until the other side ends, or is cut off: where TLS can tell the difference, and where
  /// the other side closed its socket with something of ours unread, which resets the connection.
  String readAll() throws IOException {
    ByteArrayOutputStream all = new ByteArrayOutputStream();
    ByteBuffer buffer = ByteBuffer.allocate(8192);
    try {
      while (channel.read(buffer) >= 0) {
        all.write(buffer.array(), 0, buffer.position());
        buffer.clear();
      }
    } catch (EOFException | SocketException _) {
      // Cut off: what came is what there is.
    }
    return all.toString(StandardCharsets.ISO_8859_1);
  }

  /// Reads up to and including the given text.
  String readUntil(String end) throws IOException {
    StringBuilder text = new StringBuilder();
    ByteBuffer one = ByteBuffer.allocate(1);
    while (!text.toString().endsWith(end)) {
      if (channel.read(one) < 0) {
        throw new EOFException("ended after: " + text);
      }
      text.append((char) (one.get(0) & 0xff));
      one.clear();
    }
    return text.toString();
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}
