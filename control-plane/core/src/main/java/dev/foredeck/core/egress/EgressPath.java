package dev.foredeck.core.egress;

import java.nio.file.Path;

/// How one sandbox's bridge reaches the egress gateway.
public sealed interface EgressPath {

  /// The gateway listens on a unix socket that only this sandbox can reach.
  ///
  /// @param path its folder exists once the sandbox is launched
  record UnixSocket(Path path) implements EgressPath {}

  /// The gateway is reached over the network, and knows the sandbox by what it presents.
  ///
  /// @param credentialSha256 hexadecimal hash of the credential that the sandbox's bridge presents
  record Credential(String credentialSha256) implements EgressPath {}
}
