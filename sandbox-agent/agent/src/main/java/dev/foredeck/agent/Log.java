package dev.foredeck.agent;

import org.jspecify.annotations.Nullable;

/// The agent's own log: lines on stderr, which the driver keeps. Never holds output, environment or
/// the token.
final class Log {
  private Log() {}

  static void warn(String message) {
    warn(message, null);
  }

  static void warn(String message, @Nullable Throwable cause) {
    System.err.println("foredeck-agent: " + message + (cause == null ? "" : ": " + cause));
  }
}
