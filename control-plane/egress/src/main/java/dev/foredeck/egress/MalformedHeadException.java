package dev.foredeck.egress;

/// A message head that is not exactly HTTP/1.1. The message says what is wrong and quotes nothing.
final class MalformedHeadException extends Exception {
  private static final long serialVersionUID = 1L;

  MalformedHeadException(String message) {
    super(message, null, false, false);
  }

  @Override
  public String getMessage() {
    String message = super.getMessage();
    return message == null ? "" : message;
  }
}
