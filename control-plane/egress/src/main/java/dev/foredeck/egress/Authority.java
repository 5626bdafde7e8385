package dev.foredeck.egress;

/// A host and a port.
///
/// @param port 1 to 65535
record Authority(Host host, int port) {

  /// @param text `host`, `host:port`, `[v6]` or `[v6]:port`
  /// @param defaultPort where the text has none; 0 refuses a text without one
  static Authority parse(String text, int defaultPort) throws Refusal {
    if (text.indexOf('@') >= 0) {
      throw Refusal.badRequest("the authority holds user information (an @)");
    }
    int hostEnd = text.length();
    int colon = text.lastIndexOf(':');
    if (colon >= 0 && colon > text.lastIndexOf(']')) {
      hostEnd = colon;
    }
    int port = defaultPort;
    if (hostEnd < text.length()) {
      port = parsePort(text.substring(hostEnd + 1));
    }
    if (port == 0) {
      throw Refusal.badRequest("the port is missing: write host:port");
    }
    return new Authority(Host.parse(text.substring(0, hostEnd)), port);
  }

  private static int parsePort(String digits) throws Refusal {
    boolean plain = digits.chars().allMatch(c -> c >= '0' && c <= '9');
    if (digits.isEmpty() || digits.length() > 5 || !plain) {
      throw Refusal.badRequest("the port is not a number from 1 to 65535");
    }
    int port = Integer.parseInt(digits);
    if (port < 1 || port > 65_535) {
      throw Refusal.badRequest("the port is not a number from 1 to 65535");
    }
    return port;
  }

  /// As it stands in a `Host` header.
  String withoutPort(int defaultPort) {
    if (port == defaultPort) {
      return host.inAuthority();
    }
    return toString();
  }

  @Override
  public String toString() {
    return host.inAuthority() + ":" + port;
  }
}
