package dev.foredeck.core.sandbox;

/// Where a sandbox is in its life.
public enum Phase {
  REQUESTED,
  STARTING,
  READY,
  PAUSED,
  STOPPING,
  GONE,
  FAILED;

  /// As on the wire: `ready`.
  public String wireName() {
    return switch (this) {
      case REQUESTED -> "requested";
      case STARTING -> "starting";
      case READY -> "ready";
      case PAUSED -> "paused";
      case STOPPING -> "stopping";
      case GONE -> "gone";
      case FAILED -> "failed";
    };
  }

  /// Nothing of the sandbox exists any more and it never will again.
  public boolean terminal() {
    return this == GONE || this == FAILED;
  }
}
