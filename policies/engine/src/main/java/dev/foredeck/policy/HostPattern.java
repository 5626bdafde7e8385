package dev.foredeck.policy;

import java.net.IDN;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/// A host in an egress rule: an exact name (`pypi.org`), a wildcard for one or more labels in front
/// (`*.example.com`, which does not match `example.com`), `*` for every host, an IP literal
/// (`192.0.2.7`, `[2001:db8::7]`), each with an optional `:port` or `:*` for every port. Without a
/// port: 80 and 443.
///
/// @param suffix lower-case name without the wildcard, an IPv6 address without brackets; empty for
///   `*`
/// @param wildcard whether labels in front of `suffix` match
/// @param port 0 for the default ports, [#ANY_PORT] for every port
public record HostPattern(String suffix, boolean wildcard, int port) {

  /// The port of a pattern that ends in `:*`.
  public static final int ANY_PORT = -1;

  private static final int MAX_NAME_LENGTH = 253;
  private static final int MAX_LABEL_LENGTH = 63;
  private static final int MAX_PORT = 65_535;
  private static final int MAX_PATTERN_LENGTH = 300;

  public HostPattern {
    if (port < ANY_PORT || port > MAX_PORT) {
      throw new IllegalArgumentException("a port is between 1 and 65535");
    }
    if (suffix.isEmpty() && !wildcard) {
      throw new IllegalArgumentException("a host must not be empty");
    }
  }

  /// @throws IllegalArgumentException whose message says what is wrong and what would be right
  public static HostPattern parse(String text) {
    if (text.isEmpty()) {
      throw new IllegalArgumentException("a host must not be empty; write a name as 'pypi.org'");
    }
    if (text.length() > MAX_PATTERN_LENGTH) {
      throw new IllegalArgumentException(
          "a host has at most " + MAX_PATTERN_LENGTH + " characters, this has " + text.length());
    }
    int scheme = text.indexOf("://");
    if (scheme >= 0) {
      throw new IllegalArgumentException(
          "a host has no scheme: leave out '" + printable(text.substring(0, scheme + 3)) + "'");
    }
    if (text.indexOf('/') >= 0) {
      throw new IllegalArgumentException(
          "a host has neither path nor network mask: leave out '"
              + printable(text.substring(text.indexOf('/')))
              + "'");
    }
    if (text.indexOf('@') >= 0) {
      throw new IllegalArgumentException("a host has no user: leave out what is before the '@'");
    }
    if (text.startsWith("[")) {
      return parseBracketed(text);
    }
    int colon = text.indexOf(':');
    if (colon >= 0 && text.indexOf(':', colon + 1) >= 0) {
      throw new IllegalArgumentException(
          "an IPv6 address is written in brackets, as '[2001:db8::7]:443'");
    }
    String host = text;
    int port = 0;
    if (colon >= 0) {
      host = text.substring(0, colon);
      port = parsePort(text.substring(colon + 1));
    }
    if (host.equals("*")) {
      return new HostPattern("", true, port);
    }
    boolean wildcard = host.startsWith("*.");
    String name = normalise(wildcard ? host.substring(2) : host);
    if (isNumeric(name)) {
      if (wildcard) {
        throw new IllegalArgumentException(
            "a wildcard cannot stand before an IP address: write each address");
      }
      if (!isIpv4(name)) {
        throw new IllegalArgumentException(
            "'"
                + printable(name)
                + "' is not a name, and not an IPv4 address of four decimal numbers as"
                + " '192.0.2.7'");
      }
    }
    return new HostPattern(name, wildcard, port);
  }

  private static HostPattern parseBracketed(String text) {
    int close = text.indexOf(']');
    if (close < 0) {
      throw new IllegalArgumentException("the bracket of the IPv6 address is not closed");
    }
    String address = canonicalIpv6(text.substring(1, close));
    if (address == null) {
      throw new IllegalArgumentException(
          "'" + printable(text.substring(1, close)) + "' is not an IPv6 address");
    }
    String rest = text.substring(close + 1);
    if (rest.isEmpty()) {
      return new HostPattern(address, false, 0);
    }
    if (rest.charAt(0) != ':') {
      throw new IllegalArgumentException("after ']' only ':port' may follow");
    }
    return new HostPattern(address, false, parsePort(rest.substring(1)));
  }

  private static int parsePort(String digits) {
    if (digits.equals("*")) {
      return ANY_PORT;
    }
    boolean decimal = !digits.isEmpty() && digits.length() <= 5;
    for (int i = 0; decimal && i < digits.length(); i++) {
      decimal = digits.charAt(i) >= '0' && digits.charAt(i) <= '9';
    }
    int port = decimal ? Integer.parseInt(digits) : 0;
    if (port < 1 || port > MAX_PORT) {
      throw new IllegalArgumentException(
          "'"
              + printable(digits)
              + "' is not a port: write a number between 1 and 65535, or '*' for every port");
    }
    return port;
  }

  /// Lower-cases and checks a name label by label.
  private static String normalise(String text) {
    String name = text.endsWith(".") ? text.substring(0, text.length() - 1) : text;
    for (int i = 0; i < name.length(); i++) {
      if (name.charAt(i) > 0x7e) {
        throw new IllegalArgumentException(
            "an international name is written in its ASCII form" + punycode(name));
      }
    }
    name = name.toLowerCase(Locale.ROOT);
    if (name.isEmpty()) {
      throw new IllegalArgumentException("a host must not be empty; write a name as 'pypi.org'");
    }
    if (name.length() > MAX_NAME_LENGTH) {
      throw new IllegalArgumentException(
          "a host name has at most " + MAX_NAME_LENGTH + " characters, this has " + name.length());
    }
    int start = 0;
    while (start <= name.length()) {
      int dot = name.indexOf('.', start);
      int end = dot < 0 ? name.length() : dot;
      checkLabel(name, start, end);
      start = end + 1;
    }
    return name;
  }

  private static void checkLabel(String name, int start, int end) {
    if (start == end) {
      throw new IllegalArgumentException("'" + printable(name) + "' has an empty label");
    }
    if (end - start > MAX_LABEL_LENGTH) {
      throw new IllegalArgumentException(
          "a label of a host name has at most " + MAX_LABEL_LENGTH + " characters");
    }
    for (int i = start; i < end; i++) {
      char c = name.charAt(i);
      if (c == '*') {
        throw new IllegalArgumentException(
            "'*' stands alone or as the first label, as in '*.example.com'");
      }
      if (!isNameCharacter(c)) {
        throw new IllegalArgumentException(
            "'" + printable(name) + "' has a character that no host name has: " + describe(c));
      }
    }
    if (name.charAt(start) == '-' || name.charAt(end - 1) == '-') {
      throw new IllegalArgumentException(
          "a label of a host name neither begins nor ends with '-': '" + printable(name) + "'");
    }
  }

  private static boolean isNameCharacter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  }

  private static String describe(char c) {
    if (c > ' ' && c < 0x7f) {
      return "'" + c + "'";
    }
    return String.format(Locale.ROOT, "U+%04X", (int) c);
  }

  private static String punycode(String name) {
    try {
      return ": '" + IDN.toASCII(name).toLowerCase(Locale.ROOT) + "'";
    } catch (IllegalArgumentException _) {
      return ", as 'xn--...'";
    }
  }

  private static String printable(String text) {
    StringBuilder out = new StringBuilder();
    for (int i = 0; i < text.length() && i < 80; i++) {
      char c = text.charAt(i);
      out.append(c >= ' ' && c < 0x7f ? c : '?');
    }
    return out.toString();
  }

  /// @param host lower case, without trailing dot, an IPv6 address with or without brackets; an IP
  ///   literal only ever matches itself or `*`
  public boolean matches(String host, int port) {
    if (!hasPort(port) || host.isEmpty()) {
      return false;
    }
    if (suffix.isEmpty()) {
      return true;
    }
    if (host.indexOf(':') >= 0) {
      return !wildcard && suffix.equals(canonicalIpv6(unbracketed(host)));
    }
    if (!wildcard) {
      return suffix.equals(host);
    }
    return isBeneath(host, suffix);
  }

  private boolean hasPort(int asked) {
    return switch (port) {
      case ANY_PORT -> asked >= 1 && asked <= MAX_PORT;
      case 0 -> asked == 80 || asked == 443;
      default -> asked == port;
    };
  }

  private static boolean isBeneath(String host, String suffix) {
    int labels = host.length() - suffix.length() - 1;
    return labels > 0 && host.charAt(labels) == '.' && host.endsWith(suffix);
  }

  /// Whether every host that `other` matches is matched by this pattern too.
  public boolean covers(HostPattern other) {
    return coversPort(other.port) && coversHost(other);
  }

  private boolean coversPort(int asked) {
    return switch (asked) {
      case ANY_PORT -> port == ANY_PORT;
      case 0 -> port == ANY_PORT || port == 0;
      default -> hasPort(asked);
    };
  }

  private boolean coversHost(HostPattern other) {
    if (suffix.isEmpty()) {
      return true;
    }
    if (other.suffix.isEmpty()) {
      return false;
    }
    if (!wildcard) {
      return !other.wildcard && suffix.equals(other.suffix);
    }
    return isBeneath(other.suffix, suffix) || (other.wildcard && suffix.equals(other.suffix));
  }

  /// Whether some host and port match both patterns.
  boolean overlaps(HostPattern other) {
    boolean ports = coversPort(other.port) || other.coversPort(port);
    return ports && (coversHost(other) || other.coversHost(this));
  }

  /// The patterns, one for each port, that together match what this one does.
  List<HostPattern> byPort() {
    if (port != 0) {
      return List.of(this);
    }
    return List.of(new HostPattern(suffix, wildcard, 80), new HostPattern(suffix, wildcard, 443));
  }

  /// As it is written in a policy.
  @Override
  public String toString() {
    StringBuilder out = new StringBuilder();
    if (wildcard) {
      out.append(suffix.isEmpty() ? "*" : "*.");
    }
    if (suffix.indexOf(':') >= 0) {
      out.append('[').append(suffix).append(']');
    } else {
      out.append(suffix);
    }
    return switch (port) {
      case ANY_PORT -> out.append(":*").toString();
      case 0 -> out.toString();
      default -> out.append(':').append(port).toString();
    };
  }

  private static String unbracketed(String host) {
    if (host.startsWith("[") && host.endsWith("]")) {
      return host.substring(1, host.length() - 1);
    }
    return host;
  }

  /// Whether a resolver may read the name as an address: its last label is a number, decimal, octal
  /// or hexadecimal (the WHATWG rule).
  private static boolean isNumeric(String name) {
    String last = name.substring(name.lastIndexOf('.') + 1);
    boolean digits = true;
    for (int i = 0; i < last.length(); i++) {
      digits &= last.charAt(i) >= '0' && last.charAt(i) <= '9';
    }
    if (digits) {
      return true;
    }
    boolean hex = last.startsWith("0x");
    for (int i = 2; hex && i < last.length(); i++) {
      hex = Character.digit(last.charAt(i), 16) >= 0;
    }
    return hex;
  }

  private static boolean isIpv4(String name) {
    return ipv4Bytes(name) != null;
  }

  private static int @Nullable [] ipv4Bytes(String text) {
    int[] parts = new int[4];
    int part = 0;
    int digits = 0;
    for (int i = 0; i <= text.length(); i++) {
      char c = i < text.length() ? text.charAt(i) : '.';
      if (c == '.') {
        if (digits == 0 || part == 4 || parts[part] > 255) {
          return null;
        }
        part++;
        digits = 0;
      } else if (c >= '0' && c <= '9' && part < 4 && digits < 3) {
        if (digits > 0 && parts[part] == 0) {
          return null;
        }
        parts[part] = parts[part] * 10 + (c - '0');
        digits++;
      } else {
        return null;
      }
    }
    return part == 4 ? parts : null;
  }

  /// The RFC 5952 form of an IPv6 address without brackets or zone, or null where it is none.
  private static @Nullable String canonicalIpv6(String text) {
    String address = text;
    int lastColon = text.lastIndexOf(':');
    if (lastColon >= 0 && text.indexOf('.') > lastColon) {
      int[] v4 = ipv4Bytes(text.substring(lastColon + 1));
      if (v4 == null) {
        return null;
      }
      address =
          text.substring(0, lastColon + 1)
              + Integer.toHexString(v4[0] << 8 | v4[1])
              + ":"
              + Integer.toHexString(v4[2] << 8 | v4[3]);
    }
    int gap = address.indexOf("::");
    List<Integer> head = new ArrayList<>();
    List<Integer> tail = new ArrayList<>();
    if (gap < 0) {
      if (!readGroups(address, head) || head.size() != 8) {
        return null;
      }
    } else if (!readGroups(address.substring(0, gap), head)
        || !readGroups(address.substring(gap + 2), tail)
        || head.size() + tail.size() > 7) {
      return null;
    }
    int[] groups = new int[8];
    for (int i = 0; i < head.size(); i++) {
      groups[i] = head.get(i);
    }
    for (int i = 0; i < tail.size(); i++) {
      groups[8 - tail.size() + i] = tail.get(i);
    }
    return format(groups);
  }

  private static boolean readGroups(String text, List<Integer> groups) {
    if (text.isEmpty()) {
      return true;
    }
    int start = 0;
    while (start <= text.length()) {
      int colon = text.indexOf(':', start);
      int end = colon < 0 ? text.length() : colon;
      if (end == start || end - start > 4 || groups.size() == 8) {
        return false;
      }
      int value = 0;
      for (int i = start; i < end; i++) {
        int digit = text.charAt(i) < 0x80 ? Character.digit(text.charAt(i), 16) : -1;
        if (digit < 0) {
          return false;
        }
        value = value * 16 + digit;
      }
      groups.add(value);
      start = end + 1;
    }
    return true;
  }

  private static String format(int[] groups) {
    int gapStart = -1;
    int gapLength = 1;
    for (int i = 0; i < 8; i++) {
      int end = i;
      while (end < 8 && groups[end] == 0) {
        end++;
      }
      if (end - i > gapLength) {
        gapStart = i;
        gapLength = end - i;
      }
    }
    StringBuilder out = new StringBuilder();
    int i = 0;
    while (i < 8) {
      if (i == gapStart) {
        out.append("::");
        i += gapLength;
      } else {
        if (!out.isEmpty() && out.charAt(out.length() - 1) != ':') {
          out.append(':');
        }
        out.append(Integer.toHexString(groups[i]));
        i++;
      }
    }
    return out.toString();
  }
}
