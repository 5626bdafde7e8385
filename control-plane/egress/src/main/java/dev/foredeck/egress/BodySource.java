package dev.foredeck.egress;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import org.jspecify.annotations.Nullable;

/// Takes a body off a wire, piece by piece, without its framing.
final class BodySource {
  private static final int MAX_CHUNK_LINE = 256;

  private final Wire wire;
  private final Head.Framing framing;
  private final int maxTrailerBytes;

  /// Of the body (a length) or of the current chunk.
  private long left;

  private boolean inChunks;
  private boolean ended;

  BodySource(Wire wire, Head.Framing framing, int maxTrailerBytes) {
    this.wire = wire;
    this.framing = framing;
    this.maxTrailerBytes = maxTrailerBytes;
    if (framing instanceof Head.Framing.Length length) {
      left = length.bytes();
    }
  }

  /// @return the next piece, never empty, to be used up before the next call; null after the last
  @Nullable ByteBuffer next() throws IOException, MalformedHeadException {
    if (ended) {
      return null;
    }
    ByteBuffer piece =
        switch (framing) {
          case Head.Framing.None _ -> null;
          case Head.Framing.Length _ -> counted();
          case Head.Framing.Chunked _ -> chunked();
          case Head.Framing.UntilEnd _ -> untilEnd();
        };
    ended = piece == null;
    return piece;
  }

  private @Nullable ByteBuffer counted() throws IOException {
    if (left == 0) {
      return null;
    }
    need();
    ByteBuffer unread = wire.unread();
    int length = (int) Math.min(left, unread.remaining());
    ByteBuffer piece = unread.slice(unread.position(), length);
    unread.position(unread.position() + length);
    left -= length;
    return piece;
  }

  private @Nullable ByteBuffer untilEnd() throws IOException {
    ByteBuffer unread = wire.unread();
    if (!unread.hasRemaining() && !wire.fill()) {
      return null;
    }
    ByteBuffer piece = unread.slice();
    unread.position(unread.limit());
    return piece;
  }

  private @Nullable ByteBuffer chunked() throws IOException, MalformedHeadException {
    if (left == 0) {
      if (inChunks && !line(0).isEmpty()) {
        throw new MalformedHeadException("a chunk does not end where its size says");
      }
      inChunks = true;
      left = size(line(MAX_CHUNK_LINE));
      if (left == 0) {
        skipTrailers();
        return null;
      }
    }
    return counted();
  }

  private static long size(String line) throws MalformedHeadException {
    int extension = line.indexOf(';');
    String digits = extension < 0 ? line : line.substring(0, extension);
    boolean hex = digits.chars().allMatch(c -> c < 0x80 && Character.digit(c, 16) >= 0);
    if (digits.isEmpty() || digits.length() > 15 || !hex) {
      throw new MalformedHeadException("the size of a chunk is not a hexadecimal number");
    }
    return Long.parseLong(digits, 16);
  }

  private void skipTrailers() throws IOException, MalformedHeadException {
    int leftForTrailers = maxTrailerBytes;
    while (true) {
      String trailer = line(leftForTrailers);
      if (trailer.isEmpty()) {
        return;
      }
      leftForTrailers = Math.max(0, leftForTrailers - trailer.length() - 2);
    }
  }

  /// One line of the framing, without its end.
  private String line(int maxBytes) throws IOException, MalformedHeadException {
    StringBuilder line = new StringBuilder();
    boolean carriageReturn = false;
    while (true) {
      need();
      char c = (char) (wire.unread().get() & 0xff);
      if (carriageReturn) {
        if (c != '\n') {
          throw new MalformedHeadException("the framing holds a carriage return without line feed");
        }
        return line.toString();
      }
      if (c == '\r') {
        carriageReturn = true;
        continue;
      }
      if ((c < 0x20 && c != '\t') || c == 0x7f || line.length() == maxBytes) {
        throw new MalformedHeadException("the framing of the chunks is malformed or too long");
      }
      line.append(c);
    }
  }

  private void need() throws IOException {
    if (!wire.unread().hasRemaining() && !wire.fill()) {
      throw new EOFException("the connection ended within a body");
    }
  }
}
