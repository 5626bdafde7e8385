package dev.foredeck.core.gate;

/// Where a call is. `PENDING` and `RUNNING` are alive, the rest are ends.
public enum CallStatus {
  /// Allowed, and not yet known to run.
  PENDING,
  RUNNING,
  EXITED,
  SIGNALED,
  DENIED,
  FAILED,
  TIMEOUT,
  LOST,
  CANCELLED;

  /// As on the wire: `exited`.
  public String wireName() {
    return switch (this) {
      case PENDING -> "pending";
      case RUNNING -> "running";
      case EXITED -> "exited";
      case SIGNALED -> "signaled";
      case DENIED -> "denied";
      case FAILED -> "failed";
      case TIMEOUT -> "timeout";
      case LOST -> "lost";
      case CANCELLED -> "cancelled";
    };
  }

  public boolean ended() {
    return this != PENDING && this != RUNNING;
  }
}
