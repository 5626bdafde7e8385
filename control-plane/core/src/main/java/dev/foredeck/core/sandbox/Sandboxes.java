package dev.foredeck.core.sandbox;

import dev.foredeck.core.Id;
import dev.foredeck.core.Operation;
import dev.foredeck.core.gate.Call;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// What doors may ask about sandboxes. Every method throws [dev.foredeck.core.ProblemException] for
/// its problems: a sandbox of another tenant is not found.
public interface Sandboxes {

  /// Decides and records; the launcher does the rest. Returns at once: the sandbox is `requested`,
  /// the call pending. A repeat under the same idempotency key returns what the first made.
  ///
  /// Problems: `Invalid` (unknown template or policy, more than policy allows: names field and
  /// rule), `Denied` (the policy denies `run`; recorded), `Capacity`,
  /// `Conflict(idempotency-mismatch)`.
  Provisioned create(Operation operation, ProvisionRequest request);

  record Provisioned(Sandbox sandbox, Optional<Call> call) {}

  Sandbox get(Operation operation, Id sandbox);

  /// @param after id of the last one on the page before
  List<Sandbox> list(
      Operation operation,
      Map<String, String> labels,
      Set<Phase> phases,
      Optional<Id> after,
      int limit);

  /// Changes what may be changed: the time to live (from now) and the labels (replacing all).
  Sandbox patch(
      Operation operation,
      Id sandbox,
      Optional<Duration> ttl,
      Optional<Map<String, String>> labels);

  /// Asks for its end and returns: the phase is `stopping` or already terminal. Idempotent.
  Sandbox destroy(Operation operation, Id sandbox);

  /// Waits until the sandbox is ready or terminal, or the time is over; returns it as it is then.
  Sandbox awaitReady(Operation operation, Id sandbox, Duration timeout);

  /// Waits until the sandbox is gone or failed, or the time is over; returns it as it is then.
  Sandbox awaitEnd(Operation operation, Id sandbox, Duration timeout);
}
