package dev.foredeck.core.driver;

import org.jspecify.annotations.Nullable;

/// A verb of a driver that did not succeed. The message is for operators and users: no secret, no
/// stack trace.
public sealed class DriverException extends Exception {
  private static final long serialVersionUID = 1L;

  private DriverException(String message, @Nullable Throwable cause) {
    super(message, cause);
  }

  /// The backend cannot or may not do this, now and later: an unknown template, a boundary that
  /// cannot be enforced here.
  public static final class Refused extends DriverException {
    private static final long serialVersionUID = 1L;

    public Refused(String message) {
      super(message, null);
    }
  }

  /// The backend is full: try again later.
  public static final class Full extends DriverException {
    private static final long serialVersionUID = 1L;

    public Full(String message) {
      super(message, null);
    }
  }

  /// The sandbox is not there (never was, or its agent's process has ended).
  public static final class NotThere extends DriverException {
    private static final long serialVersionUID = 1L;

    public NotThere(String message) {
      super(message, null);
    }
  }

  /// The backend failed or did not answer by the deadline; trying again may help.
  public static final class Failed extends DriverException {
    private static final long serialVersionUID = 1L;

    public Failed(String message, Throwable cause) {
      super(message, cause);
    }

    public Failed(String message) {
      super(message, null);
    }
  }

  @Override
  public String getMessage() {
    String message = super.getMessage();
    return message == null ? "" : message;
  }
}
