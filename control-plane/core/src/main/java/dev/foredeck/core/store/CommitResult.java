package dev.foredeck.core.store;

/// What became of a [Commit].
public sealed interface CommitResult {
  /// Durable.
  ///
  /// @param lastSeq of the log after it
  record Committed(long lastSeq) implements CommitResult {}

  /// Nothing happened.
  ///
  /// @param index of the change whose condition did not hold
  record Refused(int index, Change change, Change.Refusal refusal) implements CommitResult {}
}
