package dev.foredeck.egress;

import java.io.IOException;

/// The two ways from a sandbox to the gateway: what is true of the proxy must be true on both.
enum Way {
  /// A unix socket of the sandbox's own; gateway and control plane are one process.
  SOCKET,
  /// TLS and a credential; the rules are asked and flows told over a link.
  LINK;

  /// A gateway that reaches each host at a port of loopback.
  GatewayFixture pinned(EgressLimits limits, Object... hostsAndPorts) throws IOException {
    return GatewayFixture.pinned(this, limits, hostsAndPorts);
  }
}
