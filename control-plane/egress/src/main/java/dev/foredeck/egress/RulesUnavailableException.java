package dev.foredeck.egress;

/// The rules could not be asked, because whoever holds them is not reachable: not a fault of the
/// rules, and no denial by them.
final class RulesUnavailableException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final String reason;

  /// @param reason for the person or agent that is refused
  RulesUnavailableException(String reason) {
    super(reason, null, false, false);
    this.reason = reason;
  }

  @Override
  public String getMessage() {
    return reason;
  }
}
