package dev.foredeck.egress;

import java.net.Inet6Address;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.Locale;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// A host in its one canonical form, so that policy, pins, SNI and resolution all speak of the same
/// one: a lower-case DNS name without trailing dot, or an IP literal (IPv6 as in RFC 5952, without
/// brackets; an IPv4-mapped one as IPv4).
///
/// Whatever some other parser could read as a different host has no canonical form and is refused:
/// IPv4 in decimal, octal, hexadecimal or short form, zone ids, percent signs, underscores, and
/// names that are not ASCII (their punycode is fine).
record Host(String text, Optional<InetAddress> literal) {
  private static final int MAX_NAME = 253;
  private static final int MAX_LABEL = 63;

  /// @param authorityHost a host as it stands in an authority: IPv6 in brackets
  static Host parse(String authorityHost) throws Refusal {
    if (authorityHost.isEmpty()) {
      throw Refusal.badRequest("the host is empty");
    }
    if (authorityHost.startsWith("[")) {
      if (!authorityHost.endsWith("]")) {
        throw Refusal.badRequest("the IPv6 address lacks its closing bracket");
      }
      return ipv6(authorityHost.substring(1, authorityHost.length() - 1));
    }
    return nameOrIpv4(authorityHost);
  }

  private static Host ipv6(String text) throws Refusal {
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      boolean known = c == ':' || c == '.' || Character.digit(c, 16) >= 0;
      if (!known || c > 0x7f) {
        throw Refusal.badRequest(
            "the IPv6 address holds something other than hex digits and colons");
      }
    }
    int dot = text.indexOf('.');
    if (dot >= 0 && strictIpv4(text.substring(text.lastIndexOf(':') + 1)) == null) {
      throw Refusal.badRequest("the IPv4 part of the IPv6 address is not four decimal numbers");
    }
    if (text.indexOf(':') < 0 || text.length() > 45) {
      throw Refusal.badRequest("what is in brackets is not an IPv6 address");
    }
    try {
      return of(Inet6Address.ofLiteral(text));
    } catch (IllegalArgumentException _) {
      throw Refusal.badRequest("what is in brackets is not an IPv6 address");
    }
  }

  private static Host of(InetAddress address) {
    return new Host(Addresses.text(address), Optional.of(address));
  }

  private static Host nameOrIpv4(String given) throws Refusal {
    String name = given.toLowerCase(Locale.ROOT);
    if (name.endsWith(".")) {
      name = name.substring(0, name.length() - 1);
    }
    if (name.isEmpty() || name.length() > MAX_NAME) {
      throw Refusal.badRequest("a host name is 1 to " + MAX_NAME + " characters");
    }
    int start = 0;
    for (int i = 0; i <= name.length(); i++) {
      if (i == name.length() || name.charAt(i) == '.') {
        checkLabel(name, start, i);
        start = i + 1;
      } else {
        checkCharacter(name.charAt(i));
      }
    }
    String last = name.substring(name.lastIndexOf('.') + 1);
    if (isNumber(last)) {
      byte @Nullable [] address = strictIpv4(name);
      if (address == null) {
        throw Refusal.badRequest(
            "the host ends in a number and is not an IPv4 address of four decimal numbers");
      }
      return of(fromBytes(address));
    }
    return new Host(name, Optional.empty());
  }

  private static void checkCharacter(char c) throws Refusal {
    boolean plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
    if (plain) {
      return;
    }
    if (c > 0x7f) {
      throw Refusal.badRequest("the host name is not ASCII; write it in punycode (xn--...)");
    }
    throw Refusal.badRequest("a host name holds letters, digits, hyphens and dots only");
  }

  private static void checkLabel(String name, int start, int end) throws Refusal {
    if (end == start || end - start > MAX_LABEL) {
      throw Refusal.badRequest("each label of a host name is 1 to " + MAX_LABEL + " characters");
    }
    if (name.charAt(start) == '-' || name.charAt(end - 1) == '-') {
      throw Refusal.badRequest("a label of a host name neither starts nor ends with a hyphen");
    }
  }

  /// What a lenient parser would read as a number: decimal, octal or hexadecimal.
  private static boolean isNumber(String label) {
    if (label.startsWith("0x")) {
      return label.chars().skip(2).allMatch(c -> Character.digit(c, 16) >= 0);
    }
    return label.chars().allMatch(c -> c >= '0' && c <= '9');
  }

  /// Four decimal numbers without leading zeros, or null.
  private static byte @Nullable [] strictIpv4(String text) {
    String[] parts = text.split("\\.", -1);
    if (parts.length != 4) {
      return null;
    }
    byte[] address = new byte[4];
    for (int i = 0; i < 4; i++) {
      String part = parts[i];
      boolean digits = part.chars().allMatch(c -> c >= '0' && c <= '9');
      if (part.isEmpty() || part.length() > 3 || !digits) {
        return null;
      }
      int value = Integer.parseInt(part);
      if (value > 255 || (part.length() > 1 && part.charAt(0) == '0')) {
        return null;
      }
      address[i] = (byte) value;
    }
    return address;
  }

  private static InetAddress fromBytes(byte[] address) {
    try {
      return InetAddress.getByAddress(address);
    } catch (UnknownHostException bug) {
      throw new IllegalStateException("an address of a wrong length", bug);
    }
  }

  /// As it stands in a `Host` header or an authority.
  String inAuthority() {
    if (text.indexOf(':') >= 0) {
      return "[" + text + "]";
    }
    return text;
  }
}
