package dev.foredeck.agent;

import dev.foredeck.protocol.Message.Failure;
import dev.foredeck.protocol.Message.FailureCode;

/// A request that cannot be done: what the control plane is told.
final class FailureException extends Exception {
  private static final long serialVersionUID = 1;

  /// A path, the longest thing that a message quotes, could fill the wire's limit alone.
  private static final int MESSAGE_CHARS = 1000;

  private final FailureCode code;

  FailureException(FailureCode code, String message) {
    super(message);
    this.code = code;
  }

  FailureException(FailureCode code, String message, Throwable cause) {
    super(message, cause);
    this.code = code;
  }

  Failure failure() {
    String message = String.valueOf(getMessage());
    if (message.length() > MESSAGE_CHARS) {
      // Cut before the second half of a surrogate pair, never between the two.
      int end = Character.isHighSurrogate(message.charAt(MESSAGE_CHARS - 1)) ? 1 : 0;
      message = message.substring(0, MESSAGE_CHARS - end) + "…";
    }
    return new Failure(code, message);
  }

  FailureCode code() {
    return code;
  }
}
