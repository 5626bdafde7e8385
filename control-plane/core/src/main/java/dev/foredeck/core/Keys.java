package dev.foredeck.core;

import dev.foredeck.core.store.Store.ApiKey;
import java.util.List;

/// API keys: 256 random bits, kept as their SHA-256, revocable.
public interface Keys {

  /// @param secret what came after `Bearer `
  /// @throws ProblemException [Problem.Unauthenticated]
  Principal authenticate(String secret);

  /// Operators only. `secret` is shown once.
  Created create(Operation operation, String name, Role role);

  record Created(ApiKey key, String secret) {
    @Override
    public String toString() {
      return "Created[" + key.id() + "]";
    }
  }

  /// Operators only.
  List<ApiKey> list(Operation operation);

  /// Operators only. Cuts the key's open feeds.
  void revoke(Operation operation, Id key);
}
