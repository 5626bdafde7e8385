package dev.foredeck.core;

import dev.foredeck.core.gate.Call;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Store;
import java.util.Optional;

/// The tenant boundary: for everybody but its own tenant a thing is not there.
public final class Tenancy {
  private Tenancy() {}

  /// @throws ProblemException `sandbox-not-found`
  public static Sandbox sandbox(Store store, Operation operation, Id id) {
    return store
        .sandbox(id)
        .filter(sandbox -> sandbox.tenant().equals(operation.principal().tenant()))
        .orElseThrow(() ->
            new ProblemException(
                new Problem.NotFound("sandbox-not-found", "there is no sandbox " + id)));
  }

  /// @throws ProblemException `call-not-found`
  public static Call call(Store store, Operation operation, Id id) {
    return call(operation, id, store.call(id));
  }

  /// @param found what the store has under this id
  /// @throws ProblemException `call-not-found`
  public static Call call(Operation operation, Id id, Optional<Call> found) {
    return found
        .filter(call -> call.tenant().equals(operation.principal().tenant()))
        .orElseThrow(() ->
            new ProblemException(new Problem.NotFound("call-not-found", "there is no call " + id)));
  }
}
