package dev.foredeck.egress;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import javax.net.ssl.SNIHostName;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLParameters;
import org.junit.jupiter.api.Test;

/// Reads the server name that a real TLS client sends, however its records are cut, and nothing
/// else.
class ClientHelloTest {
  private static final int MAX = 16 * 1024;

  static byte[] hello(String... serverName) throws Exception {
    SSLEngine engine = SSLContext.getDefault().createSSLEngine();
    engine.setUseClientMode(true);
    SSLParameters parameters = engine.getSSLParameters();
    parameters.setServerNames(
        Arrays.stream(serverName).<javax.net.ssl.SNIServerName>map(SNIHostName::new).toList());
    engine.setSSLParameters(parameters);
    ByteBuffer out = ByteBuffer.allocate(32 * 1024);
    var _ = engine.wrap(ByteBuffer.allocate(0), out);
    return Arrays.copyOf(out.array(), out.position());
  }

  private static ClientHello parse(byte[] bytes) {
    return ClientHello.parse(ByteBuffer.wrap(bytes), MAX);
  }

  /// The handshake message of a hello in records of a given size.
  private static byte[] cut(byte[] hello, int size) {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    for (int at = 5; at < hello.length; at += size) {
      int length = Math.min(size, hello.length - at);
      out.write(22);
      out.write(3);
      out.write(1);
      out.write(length >> 8);
      out.write(length);
      out.write(hello, at, length);
    }
    return out.toByteArray();
  }

  /// A minimal hello around given extensions.
  private static byte[] withExtensions(byte[]... extensions) {
    ByteArrayOutputStream all = new ByteArrayOutputStream();
    for (byte[] extension : extensions) {
      all.writeBytes(extension);
    }
    ByteArrayOutputStream body = new ByteArrayOutputStream();
    body.writeBytes(new byte[] {3, 3});
    body.writeBytes(new byte[32]);
    body.write(0);
    body.writeBytes(new byte[] {0, 4, 0x1a, 0x1a, 0x13, 1});
    body.writeBytes(new byte[] {1, 0});
    body.write(all.size() >> 8);
    body.write(all.size());
    body.writeBytes(all.toByteArray());
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    int length = body.size() + 4;
    out.writeBytes(new byte[] {22, 3, 1, (byte) (length >> 8), (byte) length});
    out.writeBytes(new byte[] {1, 0, (byte) (body.size() >> 8), (byte) body.size()});
    out.writeBytes(body.toByteArray());
    return out.toByteArray();
  }

  private static byte[] extension(int type, byte[] content) {
    ByteBuffer extension = ByteBuffer.allocate(content.length + 4);
    extension.putShort((short) type).putShort((short) content.length).put(content);
    return extension.array();
  }

  private static byte[] names(int type, String... names) {
    ByteArrayOutputStream list = new ByteArrayOutputStream();
    for (String name : names) {
      list.write(type);
      list.write(0);
      list.write(name.length());
      list.writeBytes(name.getBytes(StandardCharsets.US_ASCII));
    }
    ByteBuffer content = ByteBuffer.allocate(list.size() + 2);
    content.putShort((short) list.size()).put(list.toByteArray());
    return extension(0, content.array());
  }

  @Test
  void readsTheNameOfARealClient() throws Exception {
    assertThat(parse(hello("site.test")))
        .isEqualTo(new ClientHello.Parsed(Optional.of("site.test")));
    assertThat(parse(hello())).isEqualTo(new ClientHello.Parsed(Optional.empty()));
  }

  @Test
  void readsANameAcrossRecords() throws Exception {
    byte[] hello = hello("site.test");
    for (int size : List.of(7, 50, 100, 255, 256, 300)) {
      if ((hello.length - 5 + size - 1) / size <= ClientHello.MAX_RECORDS) {
        assertThat(parse(cut(hello, size)))
            .as("records of %d", size)
            .isEqualTo(new ClientHello.Parsed(Optional.of("site.test")));
      }
    }
    assertThat(parse(cut(hello, 1))).isInstanceOf(ClientHello.NotTls.class);
  }

  @Test
  void waitsForWhatIsMissing() throws Exception {
    for (byte[] hello : List.of(hello("site.test"), cut(hello("site.test"), 100))) {
      for (int length = 0; length < hello.length; length++) {
        ClientHello parsed = parse(Arrays.copyOf(hello, length));
        assertThat(parsed).isInstanceOf(ClientHello.Incomplete.class);
        assertThat(((ClientHello.Incomplete) parsed).total())
            .isGreaterThan(length)
            .isLessThanOrEqualTo(hello.length);
      }
    }
  }

  @Test
  void passesGreaseAndTakesTheOuterName() {
    byte[] hello =
        withExtensions(
            extension(0x2a2a, new byte[] {0}),
            extension(0xfe0d, new byte[60]),
            names(0, "outer.test"),
            extension(0xfafa, new byte[0]));
    assertThat(parse(hello)).isEqualTo(new ClientHello.Parsed(Optional.of("outer.test")));
  }

  @Test
  void leavesWhatFollowsInOtherRecordsAlone() {
    byte[] hello = withExtensions(names(0, "a.test"));
    byte[] more = Arrays.copyOf(hello, hello.length + 20);
    assertThat(parse(more)).isEqualTo(new ClientHello.Parsed(Optional.of("a.test")));
  }

  @Test
  void refusesWhatIsNotOneWellFormedClientHello() {
    assertThat(parse("GET / HTTP/1.1\r\n\r\n".getBytes(StandardCharsets.US_ASCII)))
        .isInstanceOf(ClientHello.NotTls.class);
    assertThat(parse("S".getBytes(StandardCharsets.US_ASCII)))
        .isInstanceOf(ClientHello.NotTls.class);
    assertThat(parse(new byte[] {(byte) 0x80, 0x2e, 1, 3, 1}))
        .isInstanceOf(ClientHello.NotTls.class);
    assertThat(parse(new byte[] {22, 2})).isInstanceOf(ClientHello.NotTls.class);
    assertThat(parse(new byte[] {22, 3, 1, 0, 0})).isInstanceOf(ClientHello.NotTls.class);
    assertThat(parse(new byte[] {22, 3, 1, 0x7f, 0})).isInstanceOf(ClientHello.NotTls.class);
    assertThat(parse(new byte[] {22, 3, 1, 0, 4, 2, 0, 0, 0}))
        .isInstanceOf(ClientHello.NotTls.class);
    assertThat(parse(new byte[] {22, 3, 1, 0, 4, 1, 1, 0, 0}))
        .isInstanceOf(ClientHello.NotTls.class);
    for (byte[] hello :
        List.of(
            withExtensions(names(0, "a.test", "b.test")),
            withExtensions(names(0, "a.test"), names(0, "b.test")),
            withExtensions(names(1, "a.test")),
            withExtensions(names(0, "")),
            withExtensions(extension(0, new byte[0])),
            withExtensions(extension(0, new byte[] {0, 0})),
            withExtensions(new byte[] {0, 0, 0, 9, 1}),
            withExtensions(new byte[] {0}))) {
      assertThat(parse(hello)).isInstanceOf(ClientHello.NotTls.class);
    }
  }

  /// Whatever comes, an answer comes: no exception, no name that is not there.
  @Test
  void survivesMutations() throws Exception {
    long seed = 5;
    Random random = new Random(seed);
    byte[] good = hello("site.test");
    for (int i = 0; i < 100_000; i++) {
      byte[] bytes = Arrays.copyOf(good, random.nextInt(good.length) + 1);
      if (random.nextBoolean()) {
        bytes = good.clone();
      }
      for (int c = random.nextInt(4); c >= 0; c--) {
        bytes[random.nextInt(Math.min(bytes.length, 200))] = (byte) random.nextInt();
      }
      ClientHello parsed = parse(bytes);
      if (parsed instanceof ClientHello.Incomplete(int total)) {
        assertThat(total).as("seed %d", seed).isGreaterThan(bytes.length).isLessThanOrEqualTo(MAX);
      }
    }
  }
}
