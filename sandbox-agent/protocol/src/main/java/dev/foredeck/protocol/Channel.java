package dev.foredeck.protocol;

/// A stream of output bytes of a call, each with offsets of its own from 0.
public enum Channel {
  STDOUT,
  STDERR,
  PTY;

  /// The name on the wire of the HTTP API: `stdout`, `stderr`, `pty`.
  public String wireName() {
    return switch (this) {
      case STDOUT -> "stdout";
      case STDERR -> "stderr";
      case PTY -> "pty";
    };
  }
}
