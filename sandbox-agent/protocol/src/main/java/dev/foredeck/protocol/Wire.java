package dev.foredeck.protocol;

import java.io.IOException;

/// The codec: one [Message] to and from one frame.
///
/// A frame is `u32 length | u8 type | fields`, big-endian; `length` counts what follows it. A
/// string is `u32 length | UTF-8`, a byte array `u32 length | bytes`, a boolean one byte, an enum
/// its `u8` ordinal. The golden files in the tests hold one frame of each type: a change that
/// breaks one breaks sandboxes that outlive an upgrade.
public final class Wire {
  private Wire() {}

  /// The whole frame, length field included.
  ///
  /// @throws IllegalArgumentException when a limit of [Limits] is passed
  public static byte[] encode(Message message) {
    throw new UnsupportedOperationException(message.toString());
  }

  /// @param frame what followed the length field
  /// @throws MalformedMessageException for anything that [#encode] would not have written
  public static Message decode(byte[] frame) throws MalformedMessageException {
    throw new MalformedMessageException("not yet " + frame.length);
  }

  /// Reads one frame, waiting for it.
  ///
  /// @return null at the end of the stream, before the first byte of a frame
  /// @throws MalformedMessageException for an oversized or malformed frame
  /// @throws java.io.EOFException when the stream ends inside a frame
  public static @org.jspecify.annotations.Nullable Message read(java.io.InputStream in)
      throws IOException {
    throw new UnsupportedOperationException(in.toString());
  }

  /// Bytes that the other side should not have sent.
  public static final class MalformedMessageException extends IOException {
    public MalformedMessageException(String message) {
      super(message);
    }
  }
}
