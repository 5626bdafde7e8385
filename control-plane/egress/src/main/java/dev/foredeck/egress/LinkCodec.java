package dev.foredeck.egress;

import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.egress.EgressGateway.Verdict;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.UTFDataFormatException;
import java.nio.ByteBuffer;

/// One [LinkMessage] to and from one frame: `u32 length | u8 type | fields`, big-endian, the length
/// without itself. Strings are those of [java.io.DataOutput#writeUTF]. The golden file in the tests
/// holds one frame of each type.
final class LinkCodec {
  /// A question holds a path, which a request's head bounds; nothing else is nearly as long.
  static final int MAX_FRAME = 128 * 1024;

  /// Of a frame from someone who has not shown that he may speak.
  static final int MAX_FIRST_FRAME = 1024;

  static final int LENGTH_BYTES = 4;

  private static final int HELLO = 1;
  private static final int LOGIN = 2;
  private static final int WELCOME = 3;
  private static final int FAREWELL = 4;
  private static final int OPEN = 5;
  private static final int OPENED = 6;
  private static final int NOT_OPENED = 7;
  private static final int CLOSE = 8;
  private static final int CLOSED = 9;
  private static final int QUESTION = 10;
  private static final int ANSWER = 11;
  private static final int ENDED = 12;
  private static final int RECORDED = 13;
  private static final int PING = 14;

  private LinkCodec() {}

  /// A frame that no one who speaks this protocol sends.
  static final class MalformedFrameException extends IOException {
    private static final long serialVersionUID = 1L;

    MalformedFrameException(String message) {
      super(message);
    }
  }

  /// The whole frame.
  ///
  /// @throws IOException where a field is too long for it
  static byte[] encode(LinkMessage message) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream(256);
    bytes.writeBytes(new byte[LENGTH_BYTES]);
    write(message, new DataOutputStream(bytes));
    byte[] frame = bytes.toByteArray();
    if (frame.length - LENGTH_BYTES > MAX_FRAME) {
      throw new MalformedFrameException("a frame of " + frame.length + " bytes");
    }
    ByteBuffer.wrap(frame).putInt(frame.length - LENGTH_BYTES);
    return frame;
  }

  /// @param frame what followed the length
  static LinkMessage decode(byte[] frame) throws MalformedFrameException {
    DataInputStream in = new DataInputStream(new ByteArrayInputStream(frame));
    try {
      LinkMessage message = read(in);
      if (in.available() > 0) {
        throw new MalformedFrameException("a frame holds " + in.available() + " bytes too many");
      }
      return message;
    } catch (MalformedFrameException e) {
      throw e;
    } catch (EOFException | UTFDataFormatException e) {
      throw new MalformedFrameException("a frame ends within a field, or its text is none");
    } catch (IOException bug) {
      throw new IllegalStateException("memory does not fail", bug);
    }
  }

  /// Reads one frame, waiting for it. Takes what a peer claims for a length only as far as bytes
  /// come.
  ///
  /// @return the message
  /// @throws EOFException at the end of the stream
  static LinkMessage read(DataInputStream in, int maxFrame) throws IOException {
    int length = in.readInt();
    if (length < 1 || length > maxFrame) {
      throw new MalformedFrameException(
          "a frame of " + Integer.toUnsignedString(length) + " bytes is not 1 to " + maxFrame);
    }
    byte[] frame = in.readNBytes(length);
    if (frame.length < length) {
      throw new EOFException("the link ended within a frame");
    }
    return decode(frame);
  }

  private static void write(LinkMessage message, DataOutputStream out) throws IOException {
    switch (message) {
      case LinkMessage.Hello m -> {
        out.writeByte(HELLO);
        out.writeInt(m.oldestVersion());
        out.writeInt(m.newestVersion());
        out.writeUTF(m.gateway());
        out.writeUTF(m.nonce());
      }
      case LinkMessage.Login m -> {
        out.writeByte(LOGIN);
        out.writeInt(m.version());
        out.writeUTF(m.controlPlane());
        out.writeUTF(m.proof());
      }
      case LinkMessage.Welcome _ -> out.writeByte(WELCOME);
      case LinkMessage.Farewell m -> {
        out.writeByte(FAREWELL);
        out.writeUTF(m.reason());
      }
      case LinkMessage.Open m -> {
        out.writeByte(OPEN);
        out.writeUTF(m.sandbox().value());
        out.writeUTF(m.opening());
        out.writeUTF(m.credentialSha256());
      }
      case LinkMessage.Opened m -> {
        out.writeByte(OPENED);
        out.writeUTF(m.sandbox().value());
        out.writeUTF(m.opening());
      }
      case LinkMessage.NotOpened m -> {
        out.writeByte(NOT_OPENED);
        out.writeUTF(m.sandbox().value());
        out.writeUTF(m.opening());
        out.writeUTF(m.reason());
      }
      case LinkMessage.Close m -> {
        out.writeByte(CLOSE);
        out.writeUTF(m.sandbox().value());
      }
      case LinkMessage.Closed m -> {
        out.writeByte(CLOSED);
        out.writeUTF(m.sandbox().value());
      }
      case LinkMessage.Question m -> {
        out.writeByte(QUESTION);
        out.writeLong(m.number());
        out.writeUTF(m.sandbox().value());
        out.writeUTF(m.host());
        out.writeInt(m.port());
        out.writeUTF(m.method());
        out.writeUTF(m.path());
      }
      case LinkMessage.Answer m -> {
        out.writeByte(ANSWER);
        out.writeLong(m.number());
        out.writeBoolean(m.verdict().allowed());
        out.writeUTF(m.verdict().rule());
        out.writeUTF(m.verdict().reason());
        out.writeBoolean(m.verdict().shadow());
      }
      case LinkMessage.Ended m -> {
        out.writeByte(ENDED);
        out.writeUTF(m.sandbox().value());
        out.writeLong(m.number());
        out.writeBoolean(m.repeated());
        Flow flow = m.flow();
        out.writeUTF(flow.claimedCall());
        out.writeUTF(flow.host());
        out.writeInt(flow.port());
        out.writeUTF(flow.address());
        out.writeUTF(flow.method());
        out.writeUTF(flow.path());
        out.writeUTF(flow.effect());
        out.writeUTF(flow.rule());
        out.writeUTF(flow.reason());
        out.writeBoolean(flow.shadow());
        out.writeLong(flow.bytesIn());
        out.writeLong(flow.bytesOut());
        out.writeLong(flow.millis());
      }
      case LinkMessage.Recorded m -> {
        out.writeByte(RECORDED);
        out.writeUTF(m.sandbox().value());
        out.writeLong(m.number());
      }
      case LinkMessage.Ping _ -> out.writeByte(PING);
    }
  }

  private static LinkMessage read(DataInputStream in) throws IOException {
    int type = in.readUnsignedByte();
    return switch (type) {
      case HELLO -> new LinkMessage.Hello(in.readInt(), in.readInt(), in.readUTF(), in.readUTF());
      case LOGIN -> new LinkMessage.Login(in.readInt(), in.readUTF(), in.readUTF());
      case WELCOME -> new LinkMessage.Welcome();
      case FAREWELL -> new LinkMessage.Farewell(in.readUTF());
      case OPEN -> new LinkMessage.Open(id(in), in.readUTF(), in.readUTF());
      case OPENED -> new LinkMessage.Opened(id(in), in.readUTF());
      case NOT_OPENED -> new LinkMessage.NotOpened(id(in), in.readUTF(), in.readUTF());
      case CLOSE -> new LinkMessage.Close(id(in));
      case CLOSED -> new LinkMessage.Closed(id(in));
      case QUESTION ->
          new LinkMessage.Question(
              in.readLong(), id(in), in.readUTF(), in.readInt(), in.readUTF(), in.readUTF());
      case ANSWER ->
          new LinkMessage.Answer(
              in.readLong(), new Verdict(bool(in), in.readUTF(), in.readUTF(), bool(in)));
      case ENDED -> new LinkMessage.Ended(id(in), in.readLong(), bool(in), flow(in));
      case RECORDED -> new LinkMessage.Recorded(id(in), in.readLong());
      case PING -> new LinkMessage.Ping();
      default -> throw new MalformedFrameException("a frame of type " + type);
    };
  }

  private static Flow flow(DataInputStream in) throws IOException {
    return new Flow(
        in.readUTF(),
        in.readUTF(),
        in.readInt(),
        in.readUTF(),
        in.readUTF(),
        in.readUTF(),
        in.readUTF(),
        in.readUTF(),
        in.readUTF(),
        bool(in),
        in.readLong(),
        in.readLong(),
        in.readLong());
  }

  private static Id id(DataInputStream in) throws IOException {
    String text = in.readUTF();
    if (!Id.isValid(text)) {
      throw new MalformedFrameException("a frame names a sandbox that cannot be");
    }
    return new Id(text);
  }

  private static boolean bool(DataInputStream in) throws IOException {
    int value = in.readUnsignedByte();
    if (value > 1) {
      throw new MalformedFrameException("a frame holds a boolean of " + value);
    }
    return value == 1;
  }
}
