package dev.foredeck.egress;

import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.function.Supplier;

/// Which addresses a sandbox may never reach, whatever a policy says: everything that is not a
/// public unicast address, and this host itself.
///
/// IPv4 is a table of what is refused. IPv6 is the reverse, because most of it is unassigned: only
/// global unicast (2000::/3) and the well-known NAT64 prefix pass, less a table of exceptions, and
/// a form that wraps an IPv4 address passes only if that address would.
final class AddressRules {

  private record Range(byte[] prefix, int bits, String what) {
    boolean holds(byte[] address) {
      if (address.length != prefix.length) {
        return false;
      }
      int whole = bits / 8;
      if (!Arrays.equals(address, 0, whole, prefix, 0, whole)) {
        return false;
      }
      int rest = bits % 8;
      return rest == 0 || ((address[whole] ^ prefix[whole]) & (0xff << (8 - rest)) & 0xff) == 0;
    }
  }

  /// From the special-purpose registries of IANA, and the clouds' metadata services.
  private static final List<Range> REFUSED =
      List.of(
          range("169.254.169.254/32", "a cloud's metadata service"),
          range("100.100.100.200/32", "a cloud's metadata service"),
          range("168.63.129.16/32", "a cloud's metadata service"),
          range("192.0.0.192/32", "a cloud's metadata service"),
          range("0.0.0.0/8", "this network (unspecified)"),
          range("10.0.0.0/8", "private"),
          range("100.64.0.0/10", "shared by carrier-grade NAT"),
          range("127.0.0.0/8", "loopback"),
          range("169.254.0.0/16", "link-local"),
          range("172.16.0.0/12", "private"),
          range("192.0.0.0/24", "reserved for IETF protocols"),
          range("192.0.2.0/24", "for documentation"),
          range("192.88.99.0/24", "a 6to4 relay"),
          range("192.168.0.0/16", "private"),
          range("198.18.0.0/15", "for benchmarking"),
          range("198.51.100.0/24", "for documentation"),
          range("203.0.113.0/24", "for documentation"),
          range("224.0.0.0/4", "multicast"),
          range("255.255.255.255/32", "broadcast"),
          range("240.0.0.0/4", "reserved"),
          range("fd00:ec2::254/128", "a cloud's metadata service"),
          range("fd20:ce::254/128", "a cloud's metadata service"),
          range("::1/128", "loopback"),
          range("::/128", "unspecified"),
          range("::/96", "IPv4-compatible"),
          range("::ffff:0:0:0/96", "IPv4-translated"),
          range("64:ff9b:1::/48", "a local NAT64 prefix"),
          range("100::/64", "discarded"),
          range("2001::/32", "Teredo"),
          range("2001:2::/48", "for benchmarking"),
          range("2001::/23", "reserved for IETF protocols"),
          range("2001:db8::/32", "for documentation"),
          range("3fff::/20", "for documentation"),
          range("5f00::/16", "a segment-routing prefix"),
          range("fc00::/7", "unique local (private)"),
          range("fe80::/10", "link-local"),
          range("fec0::/10", "site-local"),
          range("ff00::/8", "multicast"));

  private static final Range GLOBAL_UNICAST = range("2000::/3", "global unicast");
  private static final Range NAT64 = range("64:ff9b::/96", "NAT64");
  private static final Range SIX_TO_FOUR = range("2002::/16", "6to4");

  private final Supplier<Set<InetAddress>> ownAddresses;

  /// @param ownAddresses this host's, asked for at each check; it may throw, and then nothing
  ///   passes
  AddressRules(Supplier<Set<InetAddress>> ownAddresses) {
    this.ownAddresses = ownAddresses;
  }

  /// What the address is, where it may not be reached.
  Optional<String> refusal(InetAddress address) {
    byte[] bytes = unmapped(address.getAddress());
    Optional<String> special = special(bytes);
    if (special.isPresent()) {
      return special;
    }
    for (InetAddress own : ownAddresses.get()) {
      if (Arrays.equals(unmapped(own.getAddress()), bytes)) {
        return Optional.of("an address of the gateway's own host");
      }
    }
    return Optional.empty();
  }

  private static Optional<String> special(byte[] bytes) {
    for (Range range : REFUSED) {
      if (range.holds(bytes)) {
        return Optional.of(range.what());
      }
    }
    if (bytes.length == 4) {
      return Optional.empty();
    }
    if (NAT64.holds(bytes)) {
      return wrapped("NAT64", bytes, 12);
    }
    if (!GLOBAL_UNICAST.holds(bytes)) {
      return Optional.of("not a global unicast address");
    }
    if (SIX_TO_FOUR.holds(bytes)) {
      return wrapped("6to4", bytes, 2);
    }
    boolean isatap = (bytes[8] & 0xfd) == 0 && bytes[9] == 0 && bytes[10] == 0x5e;
    if (isatap && (bytes[11] & 0xff) == 0xfe) {
      return wrapped("ISATAP", bytes, 12);
    }
    return Optional.empty();
  }

  private static Optional<String> wrapped(String form, byte[] bytes, int offset) {
    return special(Arrays.copyOfRange(bytes, offset, offset + 4))
        .map(what -> form + " around an address that is " + what);
  }

  /// An IPv4-mapped address as the IPv4 address it is.
  private static byte[] unmapped(byte[] bytes) {
    if (bytes.length != 16 || bytes[10] != -1 || bytes[11] != -1) {
      return bytes;
    }
    for (int i = 0; i < 10; i++) {
      if (bytes[i] != 0) {
        return bytes;
      }
    }
    return Arrays.copyOfRange(bytes, 12, 16);
  }

  private static Range range(String cidr, String what) {
    int slash = cidr.indexOf('/');
    try {
      byte[] prefix = InetAddress.ofLiteral(cidr.substring(0, slash)).getAddress();
      return new Range(prefix, Integer.parseInt(cidr.substring(slash + 1)), what);
    } catch (IllegalArgumentException bug) {
      throw new IllegalStateException("not a range: " + cidr, bug);
    }
  }

  /// The address that was given, as IPv4 where it is mapped.
  static InetAddress plain(InetAddress address) {
    try {
      return InetAddress.getByAddress(address.getAddress());
    } catch (UnknownHostException bug) {
      throw new IllegalStateException("an address of a wrong length", bug);
    }
  }
}
