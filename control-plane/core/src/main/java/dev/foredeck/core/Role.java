package dev.foredeck.core;

/// What a key may do.
public enum Role {
  /// Everything, keys included.
  OPERATOR,
  /// Sandboxes and calls of its tenant.
  DEVELOPER;

  /// `operator`, `developer`.
  public String wireName() {
    return switch (this) {
      case OPERATOR -> "operator";
      case DEVELOPER -> "developer";
    };
  }
}
