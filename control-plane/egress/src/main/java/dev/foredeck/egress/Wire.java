package dev.foredeck.egress;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;

/// One side of a connection: its bytes, and the bytes read from it that nobody has taken yet. Read
/// by one thread at a time, written by one thread at a time.
final class Wire {
  private final ByteConnection channel;
  private final ByteBuffer buffer;
  private final Runnable onActivity;

  /// @param buffer empty; between calls what is unread is between its position and its limit
  /// @param onActivity told of every read and write that moved bytes
  Wire(ByteConnection channel, ByteBuffer buffer, Runnable onActivity) {
    this.channel = channel;
    this.buffer = buffer.clear().limit(0);
    this.onActivity = onActivity;
  }

  ByteConnection channel() {
    return channel;
  }

  /// What is read and not taken. Whoever takes some moves the position.
  ByteBuffer unread() {
    return buffer;
  }

  /// Reads some more, behind what is unread.
  ///
  /// @return false at the end of the stream
  boolean fill() throws IOException {
    if (buffer.remaining() == buffer.capacity()) {
      throw new IllegalStateException("a reader waits for more than the buffer holds");
    }
    if (!buffer.hasRemaining()) {
      buffer.clear();
    } else {
      buffer.compact();
    }
    int read;
    try {
      read = channel.read(buffer);
    } finally {
      buffer.flip();
    }
    if (read > 0) {
      onActivity.run();
    }
    return read >= 0;
  }

  void write(ByteBuffer bytes) throws IOException {
    while (bytes.hasRemaining()) {
      channel.write(bytes);
      onActivity.run();
    }
  }

  /// @param last never empty, so that what remains of it tells when all is written
  void write(ByteBuffer first, ByteBuffer second, ByteBuffer last) throws IOException {
    ByteBuffer[] parts = {first, second, last};
    while (last.hasRemaining()) {
      channel.write(parts);
      onActivity.run();
    }
  }

  /// Reads one message head.
  ///
  /// @return up to and including its empty line; empty where the stream ended before its first byte
  byte[] readHead(int maxBytes) throws IOException, MalformedHeadException, HeadTooLargeException {
    int scanned = 0;
    while (true) {
      for (; scanned < buffer.remaining(); scanned++) {
        if (scanned == maxBytes) {
          throw new HeadTooLargeException();
        }
        if (endsHead(scanned)) {
          byte[] head = new byte[scanned + 1];
          buffer.get(head);
          return head;
        }
      }
      if (scanned >= maxBytes) {
        throw new HeadTooLargeException();
      }
      if (!fill()) {
        if (scanned == 0) {
          return new byte[0];
        }
        throw new EOFException("the connection ended within a head");
      }
    }
  }

  private boolean endsHead(int index) throws MalformedHeadException {
    byte b = at(index);
    if (b == 0) {
      throw new MalformedHeadException("the head holds a NUL");
    }
    if (b != '\n') {
      if (index > 0 && at(index - 1) == '\r') {
        throw new MalformedHeadException("the head holds a carriage return without a line feed");
      }
      return false;
    }
    if (index == 0 || at(index - 1) != '\r') {
      throw new MalformedHeadException("a line of the head ends without a carriage return");
    }
    return index >= 3 && at(index - 2) == '\n';
  }

  private byte at(int index) {
    return buffer.get(buffer.position() + index);
  }

  /// A head that is larger than it may be.
  static final class HeadTooLargeException extends Exception {
    private static final long serialVersionUID = 1L;

    HeadTooLargeException() {
      super(null, null, false, false);
    }
  }
}
