package dev.foredeck.core.gate;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Events;
import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.Json;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Operation;
import dev.foredeck.core.Principal;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.IdempotencyKey;
import dev.foredeck.policy.Decision;
import dev.foredeck.policy.Policy;
import java.time.Clock;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Decides on a call and says what has to be recorded of it: pure but for the clock and the id.
public final class Recorder {
  private final Clock clock;
  private final Ids ids;
  private final Limits limits;

  public Recorder(Clock clock, Ids ids, Limits limits) {
    this.clock = clock;
    this.ids = ids;
    this.limits = limits;
  }

  /// A decided call: to be run when [#allowed], and to be recorded in either case.
  ///
  /// @param changes row, `call.requested`, `call.decided`, and for a denied call its `call.ended`
  public record Decided(Call call, Decision decision, boolean allowed, List<Change> changes) {
    public Decided {
      changes = List.copyOf(changes);
    }
  }

  /// @param sandbox that the call is for; need not be recorded yet
  /// @param expiresAt of the sandbox: no process outlives it
  public Decided decide(
      Principal principal,
      Policy policy,
      Id sandbox,
      Instant expiresAt,
      ToolCall tool,
      boolean background,
      List<String> outputs,
      boolean destroysSandbox) {
    Instant now = clock.instant();
    Decision decision = policy.decide(ToolCalls.action(tool, background));
    boolean allowed = runs(policy, decision);
    ObjectNode stored = ToolCalls.stored(tool);
    CallStatus status = allowed ? CallStatus.PENDING : CallStatus.DENIED;
    Optional<CallResult> result =
        allowed
            ? Optional.empty()
            : Optional.of(
                new CallResult(CallStatus.DENIED, -1, 0, decision.reason(), 0, 0, 0, 0, now));
    Call call =
        new Call(
            ids.call(),
            sandbox,
            principal.tenant(),
            tool.tool(),
            Json.write(stored),
            ToolCalls.digest(tool.tool(), stored),
            principal.key(),
            background,
            outputs,
            destroysSandbox,
            status,
            now,
            deadline(tool, background, now, expiresAt),
            Optional.empty(),
            0,
            0,
            0,
            false,
            result);
    List<Change> changes = new ArrayList<>();
    changes.add(new Change.CreateCall(call, limits.callsPerSandbox()));
    changes.add(new Change.AppendEvent(Events.requested(call, ToolCalls.shown(tool), principal)));
    changes.add(new Change.AppendEvent(Events.decided(now, call.id(), decision, policy.shadow())));
    result.ifPresent(r -> changes.add(new Change.AppendEvent(Events.ended(call.id(), r))));
    return new Decided(call, decision, allowed, changes);
  }

  /// Whether [#decide] will allow it.
  public static boolean allows(Policy policy, ToolCall tool) {
    return runs(policy, policy.decide(ToolCalls.action(tool, false)));
  }

  private static boolean runs(Policy policy, Decision decision) {
    return decision.allowed() || policy.shadow();
  }

  /// Claims the operation's idempotency key, where it has one, for what this commit makes.
  public Optional<Change> claim(Operation operation, Optional<Id> call) {
    return key(operation)
        .map(key ->
            new Change.ClaimKey(
                key, operation.idempotency().orElseThrow().bodyHash(), call, clock.instant()));
  }

  public static Optional<IdempotencyKey> key(Operation operation) {
    return operation
        .idempotency()
        .map(i -> new IdempotencyKey(operation.principal().tenant(), i.route(), i.key()));
  }

  private Instant deadline(ToolCall tool, boolean background, Instant now, Instant expiresAt) {
    if (!(tool instanceof ToolCall.Run run)) {
      return now.plus(limits.defaultTimeout());
    }
    Instant wanted =
        run.timeout()
            .map(now::plus)
            .orElse(background ? expiresAt : now.plus(limits.defaultTimeout()));
    return wanted.isBefore(expiresAt) ? wanted : expiresAt;
  }
}
