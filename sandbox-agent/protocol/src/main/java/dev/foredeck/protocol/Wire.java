package dev.foredeck.protocol;

import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// The codec: one [Message] to and from one frame.
///
/// A frame is `u32 length | u8 type | fields`, big-endian; `length` counts what follows it. A
/// string is `u32 length | UTF-8`, a byte array `u32 length | bytes`, a boolean one byte, an enum
/// its `u8` ordinal, a list or map `u32 count | elements`. The golden files in the tests hold one
/// frame of each type: a change that breaks one breaks sandboxes that outlive an upgrade.
///
/// Every value has exactly one encoding, and [#decode] takes nothing else.
public final class Wire {
  private static final int LENGTH_BYTES = 4;

  private static final int GREETING = 1;
  private static final int START_PROCESS = 2;
  private static final int ATTACH = 3;
  private static final int SIGNAL = 4;
  private static final int TERMINATE = 5;
  private static final int WRITE_STDIN = 6;
  private static final int RELEASE = 7;
  private static final int PING = 8;
  private static final int READ_FILE = 9;
  private static final int WRITE_FILE = 10;
  private static final int LIST_FILES = 11;
  private static final int STAT_FILE = 12;
  private static final int REMOVE_FILE = 13;
  private static final int MOVE_FILE = 14;
  private static final int STARTED = 15;
  private static final int OUTPUT = 16;
  private static final int ACK = 17;
  private static final int STDIN_ACK = 18;
  private static final int ENDED = 19;
  private static final int FILE_INFO = 20;
  private static final int FILE_LIST = 21;
  private static final int CHUNK = 22;
  private static final int CHUNKS_END = 23;
  private static final int DONE = 24;
  private static final int FAILURE = 25;
  private static final int HELLO = 26;

  private static final Channel[] CHANNELS = Channel.values();
  private static final Message.EndCause[] CAUSES = Message.EndCause.values();
  private static final Message.FileKind[] KINDS = Message.FileKind.values();
  private static final Message.FailureCode[] CODES = Message.FailureCode.values();

  private Wire() {}

  /// The whole frame, length field included.
  ///
  /// @throws IllegalArgumentException when a limit of [Limits] is passed
  public static byte[] encode(Message message) {
    String fault = MessageRules.fault(message);
    if (fault != null) {
      throw new IllegalArgumentException(message.getClass().getSimpleName() + ": " + fault);
    }
    Writer w = new Writer();
    try {
      write(message, w);
    } catch (IOException e) {
      throw new UncheckedIOException("memory does not fail", e);
    }
    byte[] frame = w.frame();
    if (frame.length - LENGTH_BYTES > Limits.FRAME_BYTES) {
      throw new IllegalArgumentException(
          message.getClass().getSimpleName()
              + ": the frame is longer than "
              + Limits.FRAME_BYTES
              + " bytes");
    }
    return frame;
  }

  /// @param frame what followed the length field
  /// @throws MalformedMessageException for anything that [#encode] would not have written
  public static Message decode(byte[] frame) throws MalformedMessageException {
    if (frame.length > Limits.FRAME_BYTES) {
      throw oversized(frame.length);
    }
    Reader r = new Reader(ByteBuffer.wrap(frame));
    Message message = read(r.u8(), r);
    String name = message.getClass().getSimpleName();
    if (r.in.hasRemaining()) {
      throw new MalformedMessageException(name + ": " + r.in.remaining() + " bytes too many");
    }
    String fault = MessageRules.fault(message);
    if (fault != null) {
      throw new MalformedMessageException(name + ": " + fault);
    }
    return message;
  }

  /// Reads one frame, waiting for it.
  ///
  /// @return null at the end of the stream, before the first byte of a frame
  /// @throws MalformedMessageException for an oversized or malformed frame
  /// @throws java.io.EOFException when the stream ends inside a frame
  public static @Nullable Message read(InputStream in) throws IOException {
    byte[] head = in.readNBytes(LENGTH_BYTES);
    if (head.length == 0) {
      return null;
    }
    if (head.length < LENGTH_BYTES) {
      throw new EOFException("the stream ended inside a frame's length");
    }
    int length = ByteBuffer.wrap(head).getInt();
    if (length < 1 || length > Limits.FRAME_BYTES) {
      throw oversized(Integer.toUnsignedLong(length));
    }
    byte[] frame = in.readNBytes(length);
    if (frame.length < length) {
      throw new EOFException("the stream ended inside a frame");
    }
    return decode(frame);
  }

  private static MalformedMessageException oversized(long length) {
    return new MalformedMessageException(
        "a frame of " + length + " bytes is not 1 to " + Limits.FRAME_BYTES);
  }

  private static void write(Message message, Writer w) throws IOException {
    switch (message) {
      case Message.Greeting m -> {
        w.u8(GREETING);
        w.i32(m.protocolMin());
        w.i32(m.protocolMax());
        w.string(m.bootId());
        w.string(m.token());
        w.string(m.agentVersion());
      }
      case Message.Hello m -> {
        w.u8(HELLO);
        w.string(m.token());
        w.bool(m.gateway().isPresent());
        if (m.gateway().isPresent()) {
          w.string(m.gateway().get().sandbox());
          w.string(m.gateway().get().address());
          w.i32(m.gateway().get().port());
          w.string(m.gateway().get().credential());
        }
      }
      case Message.StartProcess m -> {
        w.u8(START_PROCESS);
        w.string(m.callId());
        w.i32(m.argv().size());
        for (String word : m.argv()) {
          w.string(word);
        }
        w.i32(m.env().size());
        for (Map.Entry<String, String> entry : m.env().entrySet()) {
          w.string(entry.getKey());
          w.string(entry.getValue());
        }
        w.string(m.cwd());
        w.bool(m.script().isPresent());
        if (m.script().isPresent()) {
          w.string(m.script().get().suffix());
          w.bytes(m.script().get().bytes());
        }
        w.bool(m.stdin());
        w.i64(m.timeoutMillis());
        w.i64(m.graceMillis());
        w.i64(m.stdoutOffset());
        w.i64(m.stderrOffset());
      }
      case Message.Attach m -> {
        w.u8(ATTACH);
        w.string(m.callId());
        w.i64(m.stdoutOffset());
        w.i64(m.stderrOffset());
      }
      case Message.Signal m -> {
        w.u8(SIGNAL);
        w.string(m.callId());
        w.i32(m.signal());
      }
      case Message.Terminate m -> {
        w.u8(TERMINATE);
        w.string(m.callId());
        w.i64(m.graceMillis());
        w.ordinal(m.cause());
      }
      case Message.WriteStdin m -> {
        w.u8(WRITE_STDIN);
        w.string(m.callId());
        w.i64(m.offset());
        w.bytes(m.bytes());
        w.bool(m.end());
      }
      case Message.Release m -> {
        w.u8(RELEASE);
        w.string(m.callId());
      }
      case Message.Ping _ -> w.u8(PING);
      case Message.ReadFile m -> {
        w.u8(READ_FILE);
        w.string(m.path());
        w.i64(m.offset());
        w.i64(m.maxBytes());
      }
      case Message.WriteFile m -> {
        w.u8(WRITE_FILE);
        w.string(m.path());
        w.i32(m.mode());
      }
      case Message.ListFiles m -> {
        w.u8(LIST_FILES);
        w.string(m.path());
        w.i32(m.depth());
      }
      case Message.StatFile m -> {
        w.u8(STAT_FILE);
        w.string(m.path());
      }
      case Message.RemoveFile m -> {
        w.u8(REMOVE_FILE);
        w.string(m.path());
        w.bool(m.recursive());
      }
      case Message.MoveFile m -> {
        w.u8(MOVE_FILE);
        w.string(m.from());
        w.string(m.to());
      }
      case Message.Started m -> {
        w.u8(STARTED);
        w.i64(m.pid());
      }
      case Message.Output m -> {
        w.u8(OUTPUT);
        w.ordinal(m.channel());
        w.i64(m.offset());
        w.bytes(m.bytes());
      }
      case Message.Ack m -> {
        w.u8(ACK);
        w.ordinal(m.channel());
        w.i64(m.offset());
      }
      case Message.StdinAck m -> {
        w.u8(STDIN_ACK);
        w.i64(m.offset());
      }
      case Message.Ended m -> {
        w.u8(ENDED);
        w.ordinal(m.cause());
        w.i32(m.exitCode());
        w.i32(m.signal());
        w.i64(m.stdoutBytes());
        w.i64(m.stderrBytes());
        w.i64(m.cpuMicros());
        w.i64(m.peakMemoryBytes());
        w.i64(m.wallMillis());
      }
      case Message.FileInfo m -> {
        w.u8(FILE_INFO);
        w.file(m);
      }
      case Message.FileList m -> {
        w.u8(FILE_LIST);
        w.i32(m.entries().size());
        for (Message.FileInfo entry : m.entries()) {
          w.file(entry);
        }
        w.bool(m.truncated());
      }
      case Message.Chunk m -> {
        w.u8(CHUNK);
        w.bytes(m.bytes());
      }
      case Message.ChunksEnd m -> {
        w.u8(CHUNKS_END);
        w.i64(m.totalBytes());
      }
      case Message.Done _ -> w.u8(DONE);
      case Message.Failure m -> {
        w.u8(FAILURE);
        w.ordinal(m.code());
        w.string(m.message());
      }
    }
  }

  private static Message read(int type, Reader r) throws MalformedMessageException {
    return switch (type) {
      case GREETING -> new Message.Greeting(r.i32(), r.i32(), r.string(), r.string(), r.string());
      case HELLO ->
          new Message.Hello(
              r.string(),
              r.bool()
                  ? Optional.of(new Message.Gateway(r.string(), r.string(), r.i32(), r.string()))
                  : Optional.empty());
      case START_PROCESS ->
          new Message.StartProcess(
              r.string(),
              r.strings(),
              r.map(),
              r.string(),
              r.bool() ? Optional.of(new Message.Script(r.string(), r.bytes())) : Optional.empty(),
              r.bool(),
              r.i64(),
              r.i64(),
              r.i64(),
              r.i64());
      case ATTACH -> new Message.Attach(r.string(), r.i64(), r.i64());
      case SIGNAL -> new Message.Signal(r.string(), r.i32());
      case TERMINATE -> new Message.Terminate(r.string(), r.i64(), r.ordinal(CAUSES));
      case WRITE_STDIN -> new Message.WriteStdin(r.string(), r.i64(), r.bytes(), r.bool());
      case RELEASE -> new Message.Release(r.string());
      case PING -> new Message.Ping();
      case READ_FILE -> new Message.ReadFile(r.string(), r.i64(), r.i64());
      case WRITE_FILE -> new Message.WriteFile(r.string(), r.i32());
      case LIST_FILES -> new Message.ListFiles(r.string(), r.i32());
      case STAT_FILE -> new Message.StatFile(r.string());
      case REMOVE_FILE -> new Message.RemoveFile(r.string(), r.bool());
      case MOVE_FILE -> new Message.MoveFile(r.string(), r.string());
      case STARTED -> new Message.Started(r.i64());
      case OUTPUT -> new Message.Output(r.ordinal(CHANNELS), r.i64(), r.bytes());
      case ACK -> new Message.Ack(r.ordinal(CHANNELS), r.i64());
      case STDIN_ACK -> new Message.StdinAck(r.i64());
      case ENDED ->
          new Message.Ended(
              r.ordinal(CAUSES), r.i32(), r.i32(), r.i64(), r.i64(), r.i64(), r.i64(), r.i64());
      case FILE_INFO -> r.file();
      case FILE_LIST -> new Message.FileList(r.files(), r.bool());
      case CHUNK -> new Message.Chunk(r.bytes());
      case CHUNKS_END -> new Message.ChunksEnd(r.i64());
      case DONE -> new Message.Done();
      case FAILURE -> new Message.Failure(r.ordinal(CODES), r.string());
      default -> throw new MalformedMessageException("unknown message type " + type);
    };
  }

  /// Bytes that the other side should not have sent.
  public static final class MalformedMessageException extends IOException {
    public MalformedMessageException(String message) {
      super(message);
    }
  }

  /// Writes fields after room for the frame's length, so that a frame is copied once.
  private static final class Writer {
    private final ByteArrayOutputStream bytes = new ByteArrayOutputStream(256);
    private final DataOutputStream out = new DataOutputStream(bytes);

    Writer() {
      bytes.writeBytes(new byte[LENGTH_BYTES]);
    }

    byte[] frame() {
      byte[] frame = bytes.toByteArray();
      ByteBuffer.wrap(frame).putInt(frame.length - LENGTH_BYTES);
      return frame;
    }

    void u8(int value) throws IOException {
      out.writeByte(value);
    }

    void bool(boolean value) throws IOException {
      out.writeByte(value ? 1 : 0);
    }

    // The ordinal is the format: constants are only ever appended, and the golden files watch it.
    @SuppressWarnings("EnumOrdinal")
    void ordinal(Enum<?> value) throws IOException {
      out.writeByte(value.ordinal());
    }

    void i32(int value) throws IOException {
      out.writeInt(value);
    }

    void i64(long value) throws IOException {
      out.writeLong(value);
    }

    void bytes(byte[] value) throws IOException {
      out.writeInt(value.length);
      out.write(value);
    }

    void string(String value) throws IOException {
      ByteBuffer utf8;
      try {
        utf8 =
            StandardCharsets.UTF_8
                .newEncoder()
                .onMalformedInput(CodingErrorAction.REPORT)
                .encode(CharBuffer.wrap(value));
      } catch (CharacterCodingException e) {
        throw new IllegalArgumentException("a string holds half of a surrogate pair", e);
      }
      out.writeInt(utf8.remaining());
      out.write(utf8.array(), utf8.arrayOffset() + utf8.position(), utf8.remaining());
    }

    void file(Message.FileInfo file) throws IOException {
      string(file.path());
      ordinal(file.kind());
      i64(file.sizeBytes());
      i32(file.mode());
      i64(file.modifiedMillis());
    }
  }

  /// Reads fields; allocates nothing larger than what is left of the frame.
  private static final class Reader {
    private final ByteBuffer in;

    Reader(ByteBuffer in) {
      this.in = in;
    }

    private void need(int bytes) throws MalformedMessageException {
      if (bytes < 0 || in.remaining() < bytes) {
        throw new MalformedMessageException(
            "a field of "
                + Integer.toUnsignedString(bytes)
                + " bytes where "
                + in.remaining()
                + " are left");
      }
    }

    int u8() throws MalformedMessageException {
      need(1);
      return Byte.toUnsignedInt(in.get());
    }

    boolean bool() throws MalformedMessageException {
      int value = u8();
      if (value > 1) {
        throw new MalformedMessageException("a boolean of " + value);
      }
      return value == 1;
    }

    <E extends Enum<E>> E ordinal(E[] values) throws MalformedMessageException {
      int ordinal = u8();
      if (ordinal >= values.length) {
        throw new MalformedMessageException(
            "unknown " + values[0].getDeclaringClass().getSimpleName() + " " + ordinal);
      }
      return values[ordinal];
    }

    int i32() throws MalformedMessageException {
      need(Integer.BYTES);
      return in.getInt();
    }

    long i64() throws MalformedMessageException {
      need(Long.BYTES);
      return in.getLong();
    }

    byte[] bytes() throws MalformedMessageException {
      int length = i32();
      need(length);
      byte[] bytes = new byte[length];
      in.get(bytes);
      return bytes;
    }

    String string() throws MalformedMessageException {
      int length = i32();
      need(length);
      ByteBuffer utf8 = in.slice(in.position(), length);
      in.position(in.position() + length);
      try {
        return StandardCharsets.UTF_8
            .newDecoder()
            .onMalformedInput(CodingErrorAction.REPORT)
            .onUnmappableCharacter(CodingErrorAction.REPORT)
            .decode(utf8)
            .toString();
      } catch (CharacterCodingException e) {
        throw new MalformedMessageException("a string is not valid UTF-8");
      }
    }

    /// @param limit of elements, none of which is shorter than a length field
    private int count(int limit) throws MalformedMessageException {
      int count = i32();
      if (count < 0 || count > limit || count > in.remaining() / Integer.BYTES) {
        throw new MalformedMessageException(
            "a list of " + Integer.toUnsignedString(count) + " elements");
      }
      return count;
    }

    List<String> strings() throws MalformedMessageException {
      int count = count(Limits.ARGV_COUNT);
      List<String> strings = new ArrayList<>(count);
      for (int i = 0; i < count; i++) {
        strings.add(string());
      }
      return strings;
    }

    Map<String, String> map() throws MalformedMessageException {
      int count = count(Limits.ENV_COUNT);
      Map<String, String> map = LinkedHashMap.newLinkedHashMap(count);
      for (int i = 0; i < count; i++) {
        String name = string();
        if (map.put(name, string()) != null) {
          throw new MalformedMessageException("a name twice in env");
        }
      }
      return map;
    }

    Message.FileInfo file() throws MalformedMessageException {
      return new Message.FileInfo(string(), ordinal(KINDS), i64(), i32(), i64());
    }

    List<Message.FileInfo> files() throws MalformedMessageException {
      int count = count(Limits.LIST_ENTRIES);
      List<Message.FileInfo> files = new ArrayList<>(count);
      for (int i = 0; i < count; i++) {
        files.add(file());
      }
      return files;
    }
  }
}
