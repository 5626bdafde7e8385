package dev.foredeck.egress;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.net.Inet6Address;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/// Which addresses no policy can open. Each range by its first and last address.
class AddressRulesTest {
  private static final InetAddress OWN = InetAddress.ofLiteral("93.184.216.34");
  private final AddressRules rules = new AddressRules(() -> Set.of(OWN));

  @ParameterizedTest
  @CsvSource({
    "0.0.0.0, unspecified",
    "0.255.255.255, unspecified",
    "10.0.0.0, private",
    "10.255.255.255, private",
    "100.64.0.0, carrier-grade",
    "100.127.255.255, carrier-grade",
    "100.100.100.200, metadata",
    "127.0.0.1, loopback",
    "127.255.255.255, loopback",
    "168.63.129.16, metadata",
    "169.254.0.0, link-local",
    "169.254.169.254, metadata",
    "169.254.170.2, link-local",
    "169.254.255.255, link-local",
    "172.16.0.0, private",
    "172.31.255.255, private",
    "192.0.0.0, IETF",
    "192.0.0.192, metadata",
    "192.0.2.1, documentation",
    "192.88.99.1, 6to4",
    "192.168.0.0, private",
    "192.168.255.255, private",
    "198.18.0.0, benchmarking",
    "198.19.255.255, benchmarking",
    "198.51.100.1, documentation",
    "203.0.113.1, documentation",
    "224.0.0.0, multicast",
    "239.255.255.255, multicast",
    "240.0.0.0, reserved",
    "255.255.255.254, reserved",
    "255.255.255.255, broadcast",
    "93.184.216.34, own host",
    "::, unspecified",
    "::1, loopback",
    "::7f00:1, IPv4-compatible",
    "::8.8.8.8, IPv4-compatible",
    "::ffff:0:127.0.0.1, IPv4-translated",
    "::ffff:0:8.8.8.8, IPv4-translated",
    "64:ff9b::127.0.0.1, NAT64 around an address that is loopback",
    "64:ff9b::169.254.169.254, NAT64 around",
    "64:ff9b::10.1.2.3, NAT64 around",
    "64:ff9b:1::1, local NAT64",
    "64:ff9b:0:1::1, not a global unicast",
    "100::1, discarded",
    "2001::1, Teredo",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2, Teredo",
    "2001:2::1, benchmarking",
    "2001:10::1, IETF",
    "2001:20::1, IETF",
    "2001:1ff:ffff::1, IETF",
    "2001:db8::1, documentation",
    "2002:7f00:1::1, 6to4 around an address that is loopback",
    "2002:a00:1::1, 6to4 around",
    "2002:a9fe:a9fe::1, 6to4 around",
    "2606:4700::5efe:10.0.0.1, ISATAP around",
    "2606:4700::200:5efe:192.168.0.1, ISATAP around",
    "3fff::1, documentation",
    "3fff:fff::1, documentation",
    "4000::1, not a global unicast",
    "5f00::1, segment-routing",
    "fc00::1, unique local",
    "fd00:ec2::254, metadata",
    "fdff:ffff::1, unique local",
    "fe80::1, link-local",
    "febf::1, link-local",
    "fec0::1, site-local",
    "feff::1, site-local",
    "ff02::1, multicast"
  })
  void refuses(String address, String what) {
    assertThat(rules.refusal(InetAddress.ofLiteral(address)).orElse("allowed")).contains(what);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "1.0.0.0",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2001:4860:4860::8888",
        "2001:200::1",
        "2001:db7:ffff::1",
        "2001:db9::1",
        "2606:4700:4700::1111",
        "2a00:1450::1",
        "3ffe::1",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1"
      })
  void passesPublicNeighbours(String address) {
    assertThat(rules.refusal(InetAddress.ofLiteral(address))).isEmpty();
  }

  @Test
  void seesThroughTheMappedForm() throws Exception {
    byte[] mapped = new byte[16];
    mapped[10] = -1;
    mapped[11] = -1;
    mapped[12] = 127;
    mapped[15] = 1;
    InetAddress address = Inet6Address.getByAddress(null, mapped, 0);
    assertThat(rules.refusal(address)).contains("loopback");
  }

  /// The JDK's own opinion, as far as it has one, may never be stricter than ours.
  @Test
  void isNowhereLaxerThanTheJdk() throws UnknownHostException {
    long seed = 20261123;
    Random random = new Random(seed);
    for (int i = 0; i < 200_000; i++) {
      byte[] bytes = new byte[random.nextBoolean() ? 4 : 16];
      random.nextBytes(bytes);
      if (random.nextInt(4) == 0) {
        bytes[0] = new byte[] {0, 10, 127, (byte) 172, (byte) 169, (byte) 192, -2, -1}[i & 7];
      }
      InetAddress address = InetAddress.getByAddress(bytes);
      boolean special =
          address.isAnyLocalAddress()
              || address.isLinkLocalAddress()
              || address.isLoopbackAddress()
              || address.isMulticastAddress()
              || address.isSiteLocalAddress();
      if (special) {
        assertThat(rules.refusal(address)).as("%s, seed %d", address, seed).isPresent();
      }
    }
  }

  @Test
  void failsWhereTheHostsOwnAddressesAreNotKnown() {
    AddressRules blind =
        new AddressRules(() -> {
          throw new IllegalStateException("no interfaces");
        });
    assertThatThrownBy(() -> blind.refusal(InetAddress.ofLiteral("8.8.8.8")))
        .isInstanceOf(IllegalStateException.class);
  }

  @Test
  void writesIpv6AsRfc5952Does() {
    assertThat(Addresses.text(InetAddress.ofLiteral("2001:0db8:0:0:1:0:0:1")))
        .isEqualTo("2001:db8::1:0:0:1");
    assertThat(Addresses.text(InetAddress.ofLiteral("::"))).isEqualTo("::");
    assertThat(Addresses.text(InetAddress.ofLiteral("::1"))).isEqualTo("::1");
    assertThat(Addresses.text(InetAddress.ofLiteral("1::"))).isEqualTo("1::");
    assertThat(Addresses.text(InetAddress.ofLiteral("1:0:2:0:3:0:4:0")))
        .isEqualTo("1:0:2:0:3:0:4:0");
    assertThat(Addresses.text(InetAddress.ofLiteral("1:0:0:2:0:0:0:3"))).isEqualTo("1:0:0:2::3");
  }

  @Test
  void writesEveryIpv6AddressSoThatItReadsBack() throws UnknownHostException {
    long seed = 7;
    Random random = new Random(seed);
    for (int i = 0; i < 20_000; i++) {
      byte[] bytes = new byte[16];
      for (int b = 0; b < 16; b++) {
        if (random.nextInt(3) == 0) {
          bytes[b] = (byte) random.nextInt();
        }
      }
      InetAddress address = InetAddress.getByAddress(bytes);
      if (bytes.length == address.getAddress().length) {
        assertThat(InetAddress.ofLiteral(Addresses.text(address)))
            .as("seed %d", seed)
            .isEqualTo(address);
      }
    }
  }
}
