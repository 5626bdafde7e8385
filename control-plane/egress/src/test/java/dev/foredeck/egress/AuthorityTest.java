package dev.foredeck.egress;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/// One canonical form for a host, or none.
class AuthorityTest {

  @ParameterizedTest
  @CsvSource({
    "Example.COM, example.com:80",
    "example.com., example.com:80",
    "example.com:8080, example.com:8080",
    "example.com:00443, example.com:443",
    "xn--bcher-kva.example, xn--bcher-kva.example:80",
    "localhost, localhost:80",
    "1and1.com, 1and1.com:80",
    "8.8.8.8:53, 8.8.8.8:53",
    "8.8.8.8., 8.8.8.8:80",
    "[2001:DB8:0::1], [2001:db8::1]:80",
    "[::1]:1, [::1]:1",
    "[::ffff:127.0.0.1]:1, 127.0.0.1:1",
    "[::ffff:7f00:1], 127.0.0.1:80",
    "a-b.example, a-b.example:80"
  })
  void readsInOneForm(String text, String canonical) throws Exception {
    assertThat(Authority.parse(text, 80)).hasToString(canonical);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        ":80",
        ".",
        "..",
        "a..b",
        ".a",
        "example.com..",
        "example.com:",
        "example.com:0",
        "example.com:65536",
        "example.com:+80",
        "example.com:-1",
        "example.com:080808",
        "example.com:80:80",
        "user@example.com",
        "user:pw@example.com",
        "exa_mple.com",
        "exa%6dple.com",
        "exämple.com",
        "example。com",
        "ｅxample.com",
        "exam ple.com",
        "exam\tple.com",
        "exam\0ple.com",
        "example.com\\evil",
        "example.com/evil",
        "-a.example",
        "a-.example",
        "2130706433",
        "0x7f000001",
        "0X7F.1",
        "017700000001",
        "127.1",
        "127.0.1",
        "127.0.0.01",
        "0127.0.0.1",
        "127.0.0.0x1",
        "127.0.0.256",
        "127.0.0.1.1",
        "1.2.3.4.5",
        "a.1",
        "a.0x",
        "a.0x1f",
        "[",
        "[]",
        "[]:80",
        "[::1",
        "::1",
        "[::1]x",
        "[::1%lo]",
        "[fe80::1%25eth0]",
        "[::127.1]",
        "[::ffff:0x7f.0.0.1]",
        "[::ffff:127.0.0.01]",
        "[1.2.3.4]",
        "[1:2:3:4:5:6:7:8:9]",
        "[:::]",
        "[1::2::3]",
        "[12345::]",
        "[v1.fe80]"
      })
  void refusesWhatAnotherParserCouldReadAsAnotherHost(String text) {
    assertThatThrownBy(() -> Authority.parse(text, 80)).isInstanceOf(Refusal.class);
  }

  @Test
  void refusesNamesThatAreTooLong() throws Exception {
    String label = "a".repeat(63);
    assertThat(Authority.parse(label + ".b", 1).port()).isEqualTo(1);
    assertThatThrownBy(() -> Authority.parse(label + "a.b", 1)).isInstanceOf(Refusal.class);
    String most = (label + ".").repeat(3) + "a".repeat(61);
    assertThat(Authority.parse(most, 1).host().text()).hasSize(253);
    assertThatThrownBy(() -> Authority.parse(most + "a", 1)).isInstanceOf(Refusal.class);
  }

  /// Whatever is accepted is accepted in its canonical form too, and stays what it is.
  @Test
  void isStableUnderRandomInput() {
    long seed = 42;
    Random random = new Random(seed);
    String alphabet = "aZ09.:-[]%_x@/\\ \0f";
    int accepted = 0;
    for (int i = 0; i < 200_000; i++) {
      StringBuilder text = new StringBuilder();
      int length = random.nextInt(12);
      for (int c = 0; c < length; c++) {
        text.append(alphabet.charAt(random.nextInt(alphabet.length())));
      }
      try {
        Authority first = Authority.parse(text.toString(), 80);
        assertThat(Authority.parse(first.toString(), 1)).as("seed %d", seed).isEqualTo(first);
        accepted++;
      } catch (Refusal _) {
        // Most are refused; what matters is that nothing else is thrown.
      }
    }
    assertThat(accepted).isPositive();
  }

  @Test
  void pinsTheMoreExactHost() throws Exception {
    InetSocketAddress any = new InetSocketAddress(InetAddress.getLoopbackAddress(), 1);
    InetSocketAddress exact = new InetSocketAddress(InetAddress.getLoopbackAddress(), 2);
    Pins pins = new Pins(Map.of("Mirror.Internal.", any, "mirror.internal:443", exact));
    assertThat(pins.find(Authority.parse("mirror.internal:443", 0))).contains(exact);
    assertThat(pins.find(Authority.parse("mirror.internal:80", 0))).contains(any);
    assertThat(pins.find(Authority.parse("a.mirror.internal:80", 0))).isEmpty();
  }

  @Test
  void refusesPinsThatLeadNowhere() {
    assertThatThrownBy(() -> new Pins(Map.of("a.b", InetSocketAddress.createUnresolved("c.d", 1))))
        .hasMessageContaining("a.b");
    assertThatThrownBy(() ->
            new Pins(Map.of("a_b", new InetSocketAddress(InetAddress.getLoopbackAddress(), 1))))
        .hasMessageContaining("a_b");
    assertThatThrownBy(() ->
            new Pins(
                Map.of("a.b:99999", new InetSocketAddress(InetAddress.getLoopbackAddress(), 1))))
        .hasMessageContaining("port");
  }
}
