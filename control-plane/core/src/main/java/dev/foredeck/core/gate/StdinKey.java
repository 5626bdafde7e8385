package dev.foredeck.core.gate;

import dev.foredeck.core.Operation;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
import dev.foredeck.core.store.IdempotencyKey;
import dev.foredeck.core.store.Store;
import dev.foredeck.core.store.Store.KeyedRequest;
import java.time.Clock;
import java.util.Optional;

/// What an idempotency key remembers of a write to stdin: the offset that it goes to, bound before
/// it is written, so that a repeat adds nothing twice; and that the agent has it, so that a repeat
/// is answered when the process is long gone.
final class StdinKey {
  private static final char OFFSET = '@';

  private final Store store;
  private final Clock clock;
  private final Operation operation;
  private final Operation.Idempotency asked;
  private final Call call;
  private final IdempotencyKey place;
  private final IdempotencyKey done;

  private StdinKey(
      Store store,
      Clock clock,
      Operation operation,
      Operation.Idempotency asked,
      Call call,
      IdempotencyKey place) {
    this.store = store;
    this.clock = clock;
    this.operation = operation;
    this.asked = asked;
    this.call = call;
    this.place = place;
    this.done = new IdempotencyKey(place.tenant(), place.route() + " written", place.key());
  }

  static Optional<StdinKey> of(Store store, Clock clock, Operation operation, Call call) {
    return operation
        .idempotency()
        .map(asked ->
            new StdinKey(
                store, clock, operation, asked, call, Recorder.key(operation).orElseThrow()));
  }

  /// The offset that an equal request bound.
  ///
  /// @throws dev.foredeck.core.ProblemException where the key was used for another body
  Optional<Long> bound() {
    return store
        .keyedRequest(place, clock.instant())
        .map(KeyedRequest::bodyHash)
        .map(claim -> {
          int at = claim.lastIndexOf(OFFSET);
          Gate.requireSameBody(operation, claim.substring(0, at));
          return Long.parseLong(claim.substring(at + 1));
        });
  }

  /// Binds the key to an offset, unless it is bound.
  ///
  /// @return the offset that it is bound to
  long bind(long offset) {
    return claim(place, asked.bodyHash() + OFFSET + offset) ? offset : bound().orElseThrow();
  }

  void written() {
    boolean _ = claim(done, asked.bodyHash());
  }

  boolean isWritten() {
    return store.keyedRequest(done, clock.instant()).isPresent();
  }

  private boolean claim(IdempotencyKey key, String what) {
    Change claim = new Change.ClaimKey(key, what, Optional.of(call.id()), clock.instant());
    return store.commit(Commit.of(call.sandbox(), claim)) instanceof CommitResult.Committed;
  }
}
