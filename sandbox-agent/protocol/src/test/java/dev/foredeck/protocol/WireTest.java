package dev.foredeck.protocol;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatExceptionOfType;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;

import dev.foredeck.protocol.Wire.MalformedMessageException;
import java.io.ByteArrayInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Random;
import java.util.TreeSet;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class WireTest {
  private static final Path GOLDEN = Path.of("src/test/resources/golden");

  static List<Message> samples() {
    return Samples.all();
  }

  @Test
  void hasASampleOfEveryMessageType() {
    assertThat(samples().stream().<Class<?>>map(Object::getClass))
        .containsExactlyInAnyOrderElementsOf(leaves(Message.class).toList());
  }

  private static Stream<Class<?>> leaves(Class<?> type) {
    return type.isSealed()
        ? Arrays.stream(type.getPermittedSubclasses()).flatMap(WireTest::leaves)
        : Stream.of(type);
  }

  /// Run with `./foredeck golden` after a deliberate change, and read the difference.
  @ParameterizedTest
  @MethodSource("samples")
  void writesTheGoldenFrame(Message sample) throws IOException {
    String hex = HexFormat.of().formatHex(Wire.encode(sample)).replaceAll("(.{64})", "$1\n");
    Path file = GOLDEN.resolve(sample.getClass().getSimpleName() + ".hex");
    if (Boolean.getBoolean("foredeck.golden.write")) {
      Files.createDirectories(GOLDEN);
      Files.writeString(file, hex.strip() + "\n");
    }
    assertThat(hex.strip()).isEqualTo(Files.readString(file).strip());
  }

  @Test
  void hasNoGoldenFileWithoutAMessage() throws IOException {
    try (Stream<Path> files = Files.list(GOLDEN)) {
      assertThat(new TreeSet<>(files.map(p -> p.getFileName().toString()).toList()))
          .isEqualTo(
              new TreeSet<>(
                  samples().stream().map(m -> m.getClass().getSimpleName() + ".hex").toList()));
    }
  }

  /// An ordinal is the format: a constant may only be appended.
  @Test
  void keepsTheOrderOfEnums() {
    assertThat(Channel.values()).startsWith(Channel.STDOUT, Channel.STDERR, Channel.PTY);
    assertThat(Arrays.toString(Message.EndCause.values())).startsWith("[SELF, TIMEOUT, CANCELLED");
    assertThat(Arrays.toString(Message.FileKind.values()))
        .startsWith("[FILE, DIRECTORY, LINK, OTHER");
    assertThat(Arrays.toString(Message.FailureCode.values()))
        .startsWith(
            "[NOT_EXECUTABLE, BAD_CWD, UNKNOWN_CALL, ALREADY_RAN, WRONG_OFFSET, STDIN_CLOSED,"
                + " OUTSIDE_WORKSPACE, NOT_FOUND, NOT_A_FILE, NOT_A_DIRECTORY, NOT_EMPTY,"
                + " DISK_FULL, LIMIT, BAD_REQUEST, IO");
  }

  @ParameterizedTest
  @MethodSource("samples")
  void readsBackWhatItWrote(Message sample) throws IOException {
    byte[] frame = Wire.encode(sample);
    Message read = Objects.requireNonNull(Wire.read(new ByteArrayInputStream(frame)));
    assertThat(read).usingRecursiveComparison().isEqualTo(sample);
    assertThat(Wire.encode(read)).isEqualTo(frame);
  }

  @ParameterizedTest
  @MethodSource("samples")
  void refusesEveryPrefixAndATrailingByte(Message sample) throws IOException {
    byte[] body = body(sample);
    for (int length = 0; length < body.length; length++) {
      refuses(Arrays.copyOf(body, length));
    }
    refuses(Arrays.copyOf(body, body.length + 1));
  }

  @Test
  void keepsTheOrderOfTheEnvironment() throws IOException {
    Message.StartProcess read = (Message.StartProcess) Wire.decode(body(Samples.process()));
    assertThat(new ArrayList<>(read.env().keySet())).containsExactly("PATH", "EMPTY");
  }

  @Test
  void endsBeforeAFrameWithNullAndInsideOneWithAnError() throws IOException {
    byte[] frame = Wire.encode(new Message.Ping());
    assertThat(Wire.read(new ByteArrayInputStream(new byte[0]))).isNull();
    for (int length = 1; length < frame.length; length++) {
      byte[] cut = Arrays.copyOf(frame, length);
      assertThatExceptionOfType(EOFException.class)
          .isThrownBy(() -> Wire.read(new ByteArrayInputStream(cut)));
    }
  }

  @Test
  void refusesAnOversizedFrameBeforeReadingIt() {
    for (int length : new int[] {0, -1, Limits.FRAME_BYTES + 1, Integer.MAX_VALUE}) {
      byte[] head = ByteBuffer.allocate(4).putInt(length).array();
      assertThatExceptionOfType(MalformedMessageException.class)
          .isThrownBy(() -> Wire.read(new ByteArrayInputStream(head)));
    }
  }

  @Test
  void refusesUnknownOrdinalsBooleansTypesAndBrokenText() {
    refuses(HexFormat.of().parseHex("00"));
    refuses(HexFormat.of().parseHex("ff"));
    // Ack of an unknown channel.
    refuses(HexFormat.of().parseHex("11030000000000000001"));
    // Failure with an unknown code, then with text that is overlong, a surrogate, or cut.
    refuses(HexFormat.of().parseHex("19630000000161"));
    refuses(HexFormat.of().parseHex("190000000002c080"));
    refuses(HexFormat.of().parseHex("190000000003eda080"));
    refuses(HexFormat.of().parseHex("190000000001c3"));
    // RemoveFile with a boolean of 2.
    refuses(HexFormat.of().parseHex("0d000000017202"));
    // StatFile whose path has a NUL, and whose length field lies.
    refuses(HexFormat.of().parseHex("0c00000002" + "6100"));
    refuses(HexFormat.of().parseHex("0cffffffff" + "6100"));
    refuses(HexFormat.of().parseHex("0c7fffffff" + "6100"));
    // FileList that claims more entries than the frame holds.
    refuses(HexFormat.of().parseHex("150000271000"));
  }

  static List<Message> invalid() {
    Message.StartProcess p = Samples.process();
    return List.of(
        new Message.Greeting(0, 1, "b", "t", "v"),
        new Message.Greeting(2, 1, "b", "t", "v"),
        new Message.Greeting(1, 0x10000, "b", "t", "v"),
        new Message.Greeting(1, 1, "", "t", "v"),
        new Message.Greeting(1, 1, "b", "t".repeat(Limits.TEXT_BYTES + 1), "v"),
        new Message.Attach("Call0123456789abcdef", 0, 0),
        new Message.Attach("short", 0, 0),
        new Message.Attach("a".repeat(42), 0, 0),
        new Message.Attach(Samples.CALL, -1, 0),
        new Message.Attach(Samples.CALL, 0, -1),
        new Message.Signal(Samples.CALL, 0),
        new Message.Signal(Samples.CALL, 65),
        new Message.Terminate(Samples.CALL, -1, Message.EndCause.SELF),
        new Message.WriteStdin(Samples.CALL, 0, new byte[Limits.CHUNK_BYTES + 1], false),
        new Message.WriteStdin(Samples.CALL, -1, new byte[0], false),
        new Message.WriteStdin(Samples.CALL, Long.MAX_VALUE, new byte[1], false),
        new Message.Release("../../../../../../etc"),
        new Message.ReadFile("a\0b", 0, 0),
        new Message.ReadFile("a", -1, 0),
        new Message.ReadFile("a", 0, -1),
        new Message.ReadFile("é".repeat(Limits.PATH_BYTES / 2 + 1), 0, 0),
        new Message.WriteFile("a", 01000),
        new Message.WriteFile("a", -1),
        new Message.ListFiles("", 0),
        new Message.ListFiles("", Limits.LIST_DEPTH + 1),
        new Message.StatFile("\0"),
        new Message.RemoveFile("\0", false),
        new Message.MoveFile("a", "\0"),
        new Message.Started(0),
        new Message.Output(Channel.STDOUT, 0, new byte[0]),
        new Message.Output(Channel.STDOUT, -1, new byte[1]),
        new Message.Output(Channel.STDOUT, Long.MAX_VALUE, new byte[1]),
        new Message.Output(Channel.STDOUT, 0, new byte[Limits.CHUNK_BYTES + 1]),
        new Message.Ack(Channel.STDOUT, -1),
        new Message.StdinAck(-1),
        new Message.Ended(Message.EndCause.SELF, 256, 0, 0, 0, 0, 0, 0),
        new Message.Ended(Message.EndCause.SELF, -1, 0, 0, 0, 0, 0, 0),
        new Message.Ended(Message.EndCause.SELF, 0, 65, 0, 0, 0, 0, 0),
        new Message.Ended(Message.EndCause.SELF, 0, 0, 0, 0, -1, 0, 0),
        new Message.FileInfo("f", Message.FileKind.FILE, -1, 0, 0),
        new Message.FileInfo("f", Message.FileKind.FILE, 0, 010000, 0),
        new Message.FileList(
            Collections.nCopies(
                Limits.LIST_ENTRIES + 1, new Message.FileInfo("f", Message.FileKind.FILE, 0, 0, 0)),
            true),
        new Message.Chunk(new byte[Limits.CHUNK_BYTES + 1]),
        new Message.ChunksEnd(-1),
        new Message.Failure(Message.FailureCode.IO, "x".repeat(Limits.TEXT_BYTES + 1)),
        with(p, List.of(), p.env(), "/", ".py"),
        with(p, List.of("a\0"), p.env(), "/", ".py"),
        with(p, List.of("a".repeat(Limits.ARG_BYTES + 1)), p.env(), "/", ".py"),
        with(p, Collections.nCopies(5, "a".repeat(Limits.ARG_BYTES)), p.env(), "/", ".py"),
        with(p, Collections.nCopies(Limits.ARGV_COUNT + 1, "a"), p.env(), "/", ".py"),
        with(p, p.argv(), Map.of("", "v"), "/", ".py"),
        with(p, p.argv(), Map.of("a=b", "v"), "/", ".py"),
        with(p, p.argv(), Map.of("a", "\0"), "/", ".py"),
        with(p, p.argv(), Map.of("a", "v".repeat(Limits.ARG_BYTES)), "/", ".py"),
        with(
            p,
            p.argv(),
            Map.of("a", "v".repeat(100_000), "b", "v".repeat(100_000), "c", "v".repeat(100_000)),
            "/",
            ".py"),
        with(p, p.argv(), p.env(), "relative", ".py"),
        with(p, p.argv(), p.env(), "/", "/../x"),
        with(p, p.argv(), p.env(), "/", ".PY"));
  }

  private static Message with(
      Message.StartProcess p,
      List<String> argv,
      Map<String, String> env,
      String cwd,
      String suffix) {
    return new Message.StartProcess(
        p.callId(),
        argv,
        env,
        cwd,
        Optional.of(new Message.Script(suffix, new byte[0])),
        p.stdin(),
        p.timeoutMillis(),
        p.graceMillis(),
        0,
        0);
  }

  @ParameterizedTest
  @MethodSource("invalid")
  void refusesToWriteWhatPassesALimit(Message message) {
    assertThatIllegalArgumentException().isThrownBy(() -> Wire.encode(message));
  }

  @Test
  void refusesToReadWhatPassesALimit() {
    // The encoder refuses these, so they are written by hand: negative offset, signal 0, depth 0.
    String call = "00000014" + HexFormat.of().formatHex(Samples.CALL.getBytes(UTF_8));
    refuses(HexFormat.of().parseHex("1100ffffffffffffffff"));
    refuses(HexFormat.of().parseHex("04" + call + "00000000"));
    refuses(HexFormat.of().parseHex("0b0000000000000000"));
    refuses(HexFormat.of().parseHex("0700000001" + "61"));
    ByteBuffer chunk = ByteBuffer.allocate(5 + Limits.CHUNK_BYTES + 1);
    refuses(chunk.put((byte) 22).putInt(Limits.CHUNK_BYTES + 1).array());
  }

  @Test
  void refusesHalfASurrogatePair() {
    assertThatIllegalArgumentException()
        .isThrownBy(() -> Wire.encode(new Message.StatFile("a\uD83D")));
  }

  @Test
  void refusesAListThatDoesNotFitInAFrame() {
    Message.FileInfo longPath =
        new Message.FileInfo("p".repeat(Limits.PATH_BYTES), Message.FileKind.FILE, 0, 0, 0);
    assertThatIllegalArgumentException()
        .isThrownBy(
            () -> Wire.encode(new Message.FileList(Collections.nCopies(600, longPath), false)));
  }

  @Test
  void carriesTheLargestProcessThatTheLimitsAllow() throws IOException {
    Message.StartProcess largest =
        new Message.StartProcess(
            Samples.CALL,
            Collections.nCopies(4, "a".repeat(Limits.ARG_BYTES)),
            Map.of("A", "v".repeat(Limits.ARG_BYTES - 2), "B", "v".repeat(Limits.ARG_BYTES - 2)),
            "/",
            Optional.of(new Message.Script(".sh", new byte[Limits.SCRIPT_BYTES])),
            false,
            1,
            0,
            0,
            0);
    assertThat(Wire.decode(body(largest))).isInstanceOf(Message.StartProcess.class);
  }

  @Test
  void answersBrokenBytesWithNothingButMalformedMessage() {
    long seed = Long.getLong("seed", 20_260_701L);
    Random random = new Random(seed);
    List<Message> samples = samples();
    for (int round = 0; round < 200_000; round++) {
      byte[] body;
      if (round % 4 == 0) {
        body = new byte[random.nextInt(80)];
        random.nextBytes(body);
        if (body.length > 0) {
          body[0] = (byte) (1 + random.nextInt(25));
        }
      } else {
        body = body(samples.get(random.nextInt(samples.size())));
        for (int flips = 1 + random.nextInt(3); flips > 0; flips--) {
          body[random.nextInt(body.length)] = (byte) random.nextInt();
        }
      }
      try {
        // What is accepted must be the one encoding of its value.
        assertThat(body(Wire.decode(body))).isEqualTo(body);
      } catch (MalformedMessageException _) {
        // The answer that broken bytes deserve.
      } catch (RuntimeException | AssertionError e) {
        throw new AssertionError(
            "seed " + seed + " round " + round + ": " + HexFormat.of().formatHex(body), e);
      }
    }
  }

  private static byte[] body(Message message) {
    byte[] frame = Wire.encode(message);
    return Arrays.copyOfRange(frame, 4, frame.length);
  }

  private static void refuses(byte[] body) {
    assertThatExceptionOfType(MalformedMessageException.class).isThrownBy(() -> Wire.decode(body));
  }
}
