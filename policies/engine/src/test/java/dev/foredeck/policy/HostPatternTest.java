package dev.foredeck.policy;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class HostPatternTest {

  @ParameterizedTest
  @CsvSource({
    "pypi.org, pypi.org, 443, true",
    "pypi.org, pypi.org, 80, true",
    "pypi.org, pypi.org, 8080, false",
    "pypi.org, evil-pypi.org, 443, false",
    "pypi.org, pypi.org.evil.com, 443, false",
    "pypi.org, sub.pypi.org, 443, false",
    "PyPI.org, pypi.org, 443, true",
    "pypi.org., pypi.org, 443, true",
    "pypi.org:8443, pypi.org, 8443, true",
    "pypi.org:8443, pypi.org, 443, false",
    "pypi.org:*, pypi.org, 1, true",
    "pypi.org:*, pypi.org, 65535, true",
    "pypi.org:*, pypi.org, 0, false",
    "*.example.com, a.example.com, 443, true",
    "*.example.com, a.b.example.com, 443, true",
    "*.example.com, example.com, 443, false",
    "*.example.com, aexample.com, 443, false",
    "*.example.com, .example.com, 443, false",
    "*, anything.at.all, 443, true",
    "*, 192.0.2.7, 80, true",
    "*, 2001:db8::7, 80, true",
    "*, anything, 22, false",
    "*:22, anything, 22, true",
    "192.0.2.7, 192.0.2.7, 443, true",
    "192.0.2.7, 192.0.2.70, 443, false",
    "[2001:db8::7], 2001:db8::7, 443, true",
    "[2001:DB8:0:0:0:0:0:7], 2001:db8::7, 443, true",
    "[2001:db8::7], [2001:db8:0::7], 443, true",
    "[2001:db8::7]:8443, 2001:db8::7, 443, false",
    "[::ffff:192.0.2.7], ::ffff:c000:207, 443, true",
    "*.example.com, '', 443, false",
  })
  void matchesHostsAndPorts(String pattern, String host, int port, boolean matches) {
    assertThat(HostPattern.parse(pattern).matches(host, port)).isEqualTo(matches);
  }

  @ParameterizedTest
  @CsvSource({
    "'', must not be empty",
    "https://pypi.org, leave out",
    "pypi.org/simple, /simple",
    "10.0.0.0/8, network mask",
    "user@pypi.org, no user",
    "pypi.org:, not a port",
    "pypi.org:0, between 1 and 65535",
    "pypi.org:65536, between 1 and 65535",
    "pypi.org:99999999999, between 1 and 65535",
    "pypi.org:-1, between 1 and 65535",
    "pypi.org:http, between 1 and 65535",
    "a..b, empty label",
    ".pypi.org, empty label",
    "pypi.*, stands alone",
    "*pypi.org, stands alone",
    "a.*.org, stands alone",
    "*.*.org, stands alone",
    "*., must not be empty",
    "bücher.example, xn--bcher-kva.example",
    "-a.org, neither begins nor ends",
    "a-.org, neither begins nor ends",
    "py pi.org, U+0020",
    "'pypi.org,npmjs.org', has a character",
    "127.1, four decimal numbers",
    "2130706433, four decimal numbers",
    "0x7f.0.0.1, four decimal numbers",
    "0177.0.0.1, four decimal numbers",
    "1.2.3.256, four decimal numbers",
    "1.2.3.4.5, four decimal numbers",
    "a.0x7f, four decimal numbers",
    "*.3.4, wildcard cannot stand",
    "::1, in brackets",
    "[::1, not closed",
    "[::1]x, only",
    "[1::2::3], not an IPv6 address",
    "[12345::], not an IPv6 address",
    "[fe80::1%eth0], not an IPv6 address",
    "[1:2:3:4:5:6:7:8:9], not an IPv6 address",
    "[], not an IPv6 address",
  })
  void refusesWithWhatWouldBeRight(String text, String message) {
    assertThatThrownBy(() -> HostPattern.parse(text))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining(message);
  }

  @Test
  void refusesNamesThatNoResolverTakes() {
    assertThatThrownBy(() -> HostPattern.parse("a".repeat(64) + ".org")).hasMessageContaining("63");
    assertThatThrownBy(() -> HostPattern.parse("a.".repeat(130) + "org"))
        .hasMessageContaining("253");
    assertThatThrownBy(() -> HostPattern.parse("a".repeat(5_000))).hasMessageContaining("300");
  }

  @ParameterizedTest
  @CsvSource({
    "*, pypi.org, true",
    "*, *, true",
    "*, *.org, true",
    "*, *:22, false",
    "*:*, *:22, true",
    "*:*, *, true",
    "*, *:*, false",
    "*.org, *, false",
    "*.org, *.pypi.org, true",
    "*.pypi.org, *.org, false",
    "*.pypi.org, *.pypi.org, true",
    "*.pypi.org, pypi.org, false",
    "*.pypi.org, a.pypi.org, true",
    "*.pypi.org, apypi.org, false",
    "pypi.org, pypi.org:443, true",
    "pypi.org, pypi.org:80, true",
    "pypi.org, pypi.org:8080, false",
    "pypi.org:443, pypi.org, false",
    "pypi.org, *.pypi.org, false",
    "'[::1]', '[0:0::1]', true",
  })
  void coversWhatItMatchesWholly(String pattern, String other, boolean covers) {
    assertThat(HostPattern.parse(pattern).covers(HostPattern.parse(other))).isEqualTo(covers);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "*",
        "*:22",
        "*:*",
        "pypi.org",
        "*.pypi.org:8443",
        "[2001:db8::7]",
        "[::]:443",
        "10.0.0.1"
      })
  void isWrittenAsItWasRead(String text) {
    assertThat(HostPattern.parse(text)).hasToString(text);
    assertThat(HostPattern.parse(HostPattern.parse(text).toString()))
        .isEqualTo(HostPattern.parse(text));
  }
}
