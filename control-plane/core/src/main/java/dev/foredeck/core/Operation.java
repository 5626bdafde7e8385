package dev.foredeck.core;

import java.util.Optional;

/// One request: who asks, and under which idempotency key. Passed explicitly.
///
/// @param trace names the request in logs and answers
public record Operation(Principal principal, String trace, Optional<Idempotency> idempotency) {

  /// The same without its key: to do again what a repeat may do again.
  public Operation unkeyed() {
    return new Operation(principal, trace, Optional.empty());
  }

  /// @param route method and path, as `POST /v1/sandboxes/sbx.../calls`
  /// @param key as the client sent it
  /// @param bodyHash SHA-256 of the body, hexadecimal
  public record Idempotency(String route, String key, String bodyHash) {}
}
