package dev.foredeck.egress;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.egress.EgressGateway.Verdict;
import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;

class LinkCodecTest {
  private static final Path GOLDEN = Path.of("src/test/resources/golden/link-frames.txt");
  private static final Id SANDBOX = new Id("sbx0000000000000001");
  private static final Flow FLOW =
      new Flow(
          "call0000000000000001",
          "site.test",
          443,
          "192.0.2.1",
          "CONNECT",
          "",
          "allow",
          "rule",
          "why",
          true,
          1,
          2,
          3);

  /// One of each type, in the order of their numbers.
  private static final List<LinkMessage> ALL =
      List.of(
          new LinkMessage.Hello(1, 2, "gateway", "nonce"),
          new LinkMessage.Login(1, "plane", "proof"),
          new LinkMessage.Welcome(),
          new LinkMessage.Farewell("why"),
          new LinkMessage.Open(SANDBOX, "opening", "hash"),
          new LinkMessage.Opened(SANDBOX, "opening"),
          new LinkMessage.NotOpened(SANDBOX, "opening", "why"),
          new LinkMessage.Close(SANDBOX),
          new LinkMessage.Closed(SANDBOX),
          new LinkMessage.Question(7, SANDBOX, "h\u00f6st", 80, "GET", "/p"),
          new LinkMessage.Answer(7, new Verdict(true, "rule", "why")),
          new LinkMessage.Ended(SANDBOX, 9, true, FLOW),
          new LinkMessage.Recorded(SANDBOX, 9),
          new LinkMessage.Ping());

  /// Frames of a version that is out must be read for as long as it is spoken.
  @Test
  void writesTheFramesOfTheGoldenFile() throws Exception {
    StringBuilder written = new StringBuilder();
    for (LinkMessage message : ALL) {
      written
          .append(message.getClass().getSimpleName())
          .append(' ')
          .append(HexFormat.of().formatHex(LinkCodec.encode(message)))
          .append('\n');
    }
    if (Boolean.getBoolean("foredeck.golden.write")) {
      Files.createDirectories(GOLDEN.getParent());
      Files.writeString(GOLDEN, written);
    }
    assertThat(written.toString()).isEqualTo(Files.readString(GOLDEN));
  }

  @Test
  void readsWhatItWrites() throws Exception {
    assertThat(ALL.stream().<Object>map(Object::getClass).toList())
        .containsExactlyInAnyOrder((Object[]) LinkMessage.class.getPermittedSubclasses());
    for (LinkMessage message : ALL) {
      assertThat(read(LinkCodec.encode(message), LinkCodec.MAX_FRAME)).isEqualTo(message);
    }
  }

  private static LinkMessage read(byte[] frame, int most) throws IOException {
    return LinkCodec.read(new DataInputStream(new ByteArrayInputStream(frame)), most);
  }

  @Test
  void takesNoFrameThatIsCutLongerOrOfNoType() throws Exception {
    for (LinkMessage message : ALL) {
      byte[] frame = LinkCodec.encode(message);
      byte[] body = Arrays.copyOfRange(frame, LinkCodec.LENGTH_BYTES, frame.length);
      for (int cut = 0; cut < body.length; cut++) {
        byte[] less = Arrays.copyOf(body, cut);
        assertThatThrownBy(() -> LinkCodec.decode(less))
            .isInstanceOf(LinkCodec.MalformedFrameException.class);
      }
      byte[] more = Arrays.copyOf(body, body.length + 1);
      assertThatThrownBy(() -> LinkCodec.decode(more)).hasMessageContaining("1 bytes too many");
    }
    assertThatThrownBy(() -> LinkCodec.decode(new byte[] {99})).hasMessageContaining("type 99");
  }

  @Test
  void takesNoFrameThatIsLongerThanItMayBe() {
    byte[] claim = ByteBuffer.allocate(4).putInt(1025).array();
    assertThatThrownBy(() -> read(claim, 1024)).hasMessageContaining("1025 bytes is not 1 to 1024");
    byte[] negative = ByteBuffer.allocate(4).putInt(-1).array();
    assertThatThrownBy(() -> read(negative, LinkCodec.MAX_FRAME))
        .isInstanceOf(LinkCodec.MalformedFrameException.class);
    byte[] claimed = ByteBuffer.allocate(4).putInt(1000).array();
    assertThatThrownBy(() -> read(claimed, 1024)).isInstanceOf(EOFException.class);
  }

  @Test
  void answersRandomBytesWithAnExceptionOfItsOwnOrAMessage() {
    Random random = new Random(7);
    int refused = 0;
    for (int i = 0; i < 100_000; i++) {
      byte[] body = new byte[1 + random.nextInt(80)];
      random.nextBytes(body);
      body[0] = (byte) (1 + random.nextInt(ALL.size()));
      try {
        assertThat(LinkCodec.decode(body)).isNotNull();
      } catch (LinkCodec.MalformedFrameException _) {
        refused++;
      }
    }
    assertThat(refused).isGreaterThan(50_000);
  }

  @Test
  void isProvedByWhoHoldsTheKeyForThisNonceAlone() {
    LinkKey key = LinkKey.of(new byte[] {1});
    String proof = key.proof("gateway", "nonce", "plane");
    assertThat(key.proves(proof, "gateway", "nonce", "plane")).isTrue();
    assertThat(key.proves(proof, "gateway", "nonce2", "plane")).isFalse();
    assertThat(key.proves(proof, "gateway2", "nonce", "plane")).isFalse();
    assertThat(key.proves(proof, "gateway", "nonce", "plane2")).isFalse();
    assertThat(key.proves("", "gateway", "nonce", "plane")).isFalse();
    assertThat(LinkKey.of(new byte[] {2}).proves(proof, "gateway", "nonce", "plane")).isFalse();
    assertThat(LinkKey.parse(key.text()).proves(proof, "gateway", "nonce", "plane")).isTrue();
    assertThat(key.toString()).doesNotContain(key.text());
  }
}
