package dev.foredeck.policy;

/// A host in an egress rule: an exact name (`pypi.org`), a wildcard for one or more labels in front
/// (`*.example.com`, which does not match `example.com`), `*` for every host, each with an optional
/// `:port`. Without a port: 80 and 443.
///
/// @param suffix lower-case name without the wildcard; empty for `*`
/// @param wildcard whether labels in front of `suffix` match
/// @param port 0 for the default ports
public record HostPattern(String suffix, boolean wildcard, int port) {

  /// @throws IllegalArgumentException whose message says what is wrong and what would be right
  public static HostPattern parse(String text) {
    throw new UnsupportedOperationException(text);
  }

  /// @param host lower case, without trailing dot; an IP literal only ever matches itself or `*`
  public boolean matches(String host, int port) {
    throw new UnsupportedOperationException(host + port);
  }

  /// Whether every host that `other` matches is matched by this pattern too.
  public boolean covers(HostPattern other) {
    throw new UnsupportedOperationException(other.toString());
  }
}
