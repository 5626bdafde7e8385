package dev.foredeck.cli;

/// Ends a command: what the person at the terminal is told, and the exit code.
final class CommandException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final int exitCode;
  private final String text;

  CommandException(int exitCode, String text) {
    super(text);
    this.exitCode = exitCode;
    this.text = text;
  }

  CommandException(int exitCode, String text, Throwable cause) {
    super(text, cause);
    this.exitCode = exitCode;
    this.text = text;
  }

  int exitCode() {
    return exitCode;
  }

  /// One sentence or a few lines, without a stack trace.
  String text() {
    return text;
  }
}
