package dev.foredeck.egress;

import java.net.InetSocketAddress;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;

/// The operator's pins: hosts that are reached at a given address instead of a resolved one. They
/// alone may lead to a private or loopback address (an internal mirror, the demo's site). Policy
/// must still admit the host.
public final class Pins {
  public static final Pins NONE = new Pins(Map.of());

  private final Map<String, InetSocketAddress> byHost = new HashMap<>();

  /// @param pins from `host` (any port) or `host:port` to an address and port; the more exact wins
  /// @throws IllegalArgumentException naming the pin that cannot be
  public Pins(Map<String, InetSocketAddress> pins) {
    pins.forEach((key, target) -> {
      if (target.isUnresolved() || target.getPort() == 0) {
        throw new IllegalArgumentException(
            "egress pin " + key + " does not lead to an IP address and a port");
      }
      if (byHost.put(canonical(key), target) != null) {
        throw new IllegalArgumentException("egress pin " + key + " is there twice");
      }
    });
  }

  private static String canonical(String key) {
    try {
      int afterHost = key.lastIndexOf(']') + 1;
      if (key.indexOf(':', afterHost) >= 0) {
        return Authority.parse(key, 0).toString();
      }
      return Host.parse(key).inAuthority();
    } catch (Refusal refusal) {
      throw new IllegalArgumentException(
          "egress pin " + key + " is not a host or host:port: " + refusal.reason(), refusal);
    }
  }

  Optional<InetSocketAddress> find(Authority authority) {
    InetSocketAddress exact = byHost.get(authority.toString());
    if (exact != null) {
      return Optional.of(exact);
    }
    return Optional.ofNullable(byHost.get(authority.host().inAuthority()));
  }
}
