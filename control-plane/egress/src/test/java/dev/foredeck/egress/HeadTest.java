package dev.foredeck.egress;

import static dev.foredeck.egress.RawClient.head;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.charset.StandardCharsets;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/// Heads are HTTP/1.1 to the letter, or refused.
class HeadTest {
  private static ProxyRequest request(String head) throws MalformedHeadException, Refusal {
    return ProxyRequest.from(Head.parse(head.getBytes(StandardCharsets.ISO_8859_1), 50));
  }

  private static void assertRefused(String head) {
    assertThatThrownBy(() -> request(head))
        .as(head)
        .isInstanceOfAny(Refusal.class, MalformedHeadException.class);
  }

  @ParameterizedTest
  @CsvSource({
    "http://a.test, GET, /, /",
    "http://a.test/, GET, /, /",
    "HTTP://A.test:80/b?c=d, GET, /b?c=d, /b",
    "http://a.test?c=/d, GET, /?c=/d, /",
    "http://a.test, OPTIONS, *, *",
    "http://a.test/, OPTIONS, /, /",
    "http://a.test/.well-known/x..y, PATCH, /.well-known/x..y, /.well-known/x..y"
  })
  void readsAbsoluteTargets(String target, String method, String sent, String path)
      throws Exception {
    ProxyRequest request = request(head(method + " " + target + " HTTP/1.1", "Host: a.test"));
    assertThat(request.target()).isEqualTo(sent);
    assertThat(request.path()).isEqualTo(path);
    assertThat(request.authority()).hasToString("a.test:80");
  }

  @Test
  void readsATunnel() throws Exception {
    ProxyRequest request = request(head("CONNECT A.test:8443 HTTP/1.1", "Host: a.test:8443"));
    assertThat(request.isTunnel()).isTrue();
    assertThat(request.authority()).hasToString("a.test:8443");
    assertThat(request.path()).isEmpty();
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "GET / HTTP/1.1",
        "GET a.test HTTP/1.1",
        "GET https://a.test/ HTTP/1.1",
        "GET ftp://a.test/ HTTP/1.1",
        "GET //a.test/ HTTP/1.1",
        "GET http:/a.test/ HTTP/1.1",
        "GET http://a.test/#f HTTP/1.1",
        "GET http://u@a.test/ HTTP/1.1",
        "GET http://a.test\\@b.test/ HTTP/1.1",
        "GET http://a.test/x/../y HTTP/1.1",
        "GET http://a.test/x/%2E%2e/y HTTP/1.1",
        "GET http://a.test/. HTTP/1.1",
        "GET http://a.test/ HTTP/2.0",
        "GET http://a.test/ HTTP/1.2",
        "GET http://a.test/ http/1.1",
        "GET http://a.test/",
        "GET  http://a.test/ HTTP/1.1",
        "GET http://a.test/ HTTP/1.1 ",
        " GET http://a.test/ HTTP/1.1",
        "GET\thttp://a.test/ HTTP/1.1",
        "GET http://a.test/\u00e9 HTTP/1.1",
        "GET http://a.test/\u0000 HTTP/1.1",
        "G(T http://a.test/ HTTP/1.1",
        "PRI * HTTP/2.0",
        "OPTIONS * HTTP/1.1",
        "CONNECT a.test HTTP/1.1",
        "CONNECT http://a.test:443 HTTP/1.1",
        "CONNECT a.test:443/ HTTP/1.1",
        "CONNECT /a.test:443 HTTP/1.1",
        "CONNECT a.test:0 HTTP/1.1",
        ""
      })
  void refusesOtherRequestLines(String line) {
    assertRefused(head(line, "Host: a.test"));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "Host: b.test",
        "Host: a.test:81",
        "Host:",
        "Host: a.test, a.test",
        "Host: a.test\r\nHost: a.test",
        "X-No-Host: 1",
        "Host: a.test\r\nContent-Length: 1\r\nContent-Length: 1",
        "Host: a.test\r\nContent-Length: 1\r\nContent-Length: 2",
        "Host: a.test\r\nContent-Length: 1, 1",
        "Host: a.test\r\nContent-Length: +1",
        "Host: a.test\r\nContent-Length: -1",
        "Host: a.test\r\nContent-Length: 0x1",
        "Host: a.test\r\nContent-Length: 1 1",
        "Host: a.test\r\nContent-Length:",
        "Host: a.test\r\nContent-Length: 1111111111111111111",
        "Host: a.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        "Host: a.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 1",
        "Host: a.test\r\nTransfer-Encoding: gzip, chunked",
        "Host: a.test\r\nTransfer-Encoding: chunked, chunked",
        "Host: a.test\r\nTransfer-Encoding: xchunked",
        "Host: a.test\r\nTransfer-Encoding: identity",
        "Host: a.test\r\nTransfer-Encoding:",
        "Host: a.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Host: a.test\r\nTransfer-Encoding: \u000bchunked",
        "Host: a.test\r\nTransfer-Encoding : chunked",
        "Host: a.test\r\n Folded: 1",
        "Host: a.test\r\n\tfolded",
        "Host : a.test",
        "Ho st: a.test",
        "Host: a.test\r\nX\u0000: 1",
        "Host: a.test\r\nX: a\u0000b",
        "Host: a.test\r\nX: a\u0001b",
        "Host: a.test\r\nX: a\u007fb",
        "Host: a.test\r\nX: a\rb",
        "Host: a.test\r\nX: a\nb",
        "Host: a.test\r\n: empty",
        "Host: a.test\r\nno colon"
      })
  void refusesFieldsThatTwoParsersCouldReadDifferently(String fields) {
    assertRefused(head("POST http://a.test/ HTTP/1.1", fields));
  }

  @Test
  void refusesMoreFieldsThanTheLimit() throws Exception {
    assertThat(request(head("GET http://a.test/ HTTP/1.1", "Host: a.test" + "\r\nX: 1".repeat(49))))
        .isNotNull();
    assertRefused(head("GET http://a.test/ HTTP/1.1", "Host: a.test" + "\r\nX: 1".repeat(50)));
  }

  @Test
  void refusesChunksInHttp10AndBodiesOfTunnels() {
    assertRefused(head("POST http://a.test/ HTTP/1.0", "Transfer-Encoding: chunked"));
    assertRefused(head("CONNECT a.test:443 HTTP/1.1", "Host: a.test:443", "Content-Length: 1"));
  }

  @Test
  void ignoresClaimsThatAreNotIds() throws Exception {
    for (String value : new String[] {"Basic ???", "Basic", "Bearer x", "Basic YTpi", ""}) {
      Head head =
          Head.parse(
              head("x", "Proxy-Authorization: " + value).getBytes(StandardCharsets.US_ASCII), 9);
      assertThat(ProxyRequest.claimedCall(head)).isEmpty();
    }
  }

  /// Mutations of a good head are read or refused, and what is read never holds what could split
  /// it.
  @Test
  void survivesMutations() {
    long seed = 99;
    Random random = new Random(seed);
    byte[] good =
        head(
                "POST http://a.test:80/x?y HTTP/1.1",
                "Host: a.test",
                "Connection: close, x",
                "Content-Length: 10",
                "X-Y: z")
            .getBytes(StandardCharsets.US_ASCII);
    byte[] spice = {0, '\r', '\n', ' ', '\t', ':', ',', '/', '@', '1', (byte) 0xe9, 127, '.'};
    int read = 0;
    for (int i = 0; i < 200_000; i++) {
      byte[] bytes = good.clone();
      int changes = 1 + random.nextInt(3);
      for (int c = 0; c < changes; c++) {
        bytes[random.nextInt(bytes.length)] = spice[random.nextInt(spice.length)];
      }
      try {
        ProxyRequest request = ProxyRequest.from(Head.parse(bytes, 50));
        read++;
        assertThat(request.target()).as("seed %d", seed).matches("[!-~]+");
        for (Header field : request.head().endToEnd()) {
          assertThat(field.name() + field.value())
              .as("seed %d", seed)
              .doesNotContainPattern("[\r\n\0]");
        }
      } catch (MalformedHeadException | Refusal _) {
        // The usual end; anything else that is thrown fails the test.
      }
    }
    assertThat(read).isPositive();
  }
}
