package dev.foredeck.driver.simulated;

import dev.foredeck.protocol.Message.Failure;
import dev.foredeck.protocol.Message.FailureCode;

/// A request that the simulated agent answers with [Failure].
final class AgentFailure extends Exception {
  private static final long serialVersionUID = 1L;
  private final FailureCode code;
  private final String text;

  AgentFailure(FailureCode code, String text) {
    super(text);
    this.code = code;
    this.text = text;
  }

  Failure message() {
    return new Failure(code, text);
  }
}
