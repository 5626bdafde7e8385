package dev.foredeck.core.sandbox;

import dev.foredeck.core.Events;
import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Operation;
import dev.foredeck.core.Policies;
import dev.foredeck.core.Problem;
import dev.foredeck.core.Problem.Violation;
import dev.foredeck.core.ProblemException;
import dev.foredeck.core.Tenancy;
import dev.foredeck.core.Waits;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallStarter;
import dev.foredeck.core.gate.Gate;
import dev.foredeck.core.gate.Recorder;
import dev.foredeck.core.pool.PoolKey;
import dev.foredeck.core.pool.WarmPools;
import dev.foredeck.core.pool.WarmPools.Claim;
import dev.foredeck.core.pool.WarmSandbox;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
import dev.foredeck.core.store.Store;
import dev.foredeck.policy.Policy;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// Sandboxes for doors: decides and records in one commit; a warm one takes its place in the same,
/// or the [Launcher] makes it real. Thread-safe, stateless.
public final class Provisioning implements Sandboxes {
  private static final Set<Phase> ALIVE = Set.of(Phase.REQUESTED, Phase.STARTING, Phase.READY);

  private final Store store;
  private final Policies policies;
  private final Recorder recorder;
  private final CallStarter starter;
  private final WarmPools pools;
  private final List<String> templates;
  private final String owner;
  private final Clock clock;
  private final Ids ids;
  private final Limits limits;

  /// @param templates that the driver takes; the first is the default
  /// @param owner this replica
  public Provisioning(
      Store store,
      Policies policies,
      Recorder recorder,
      CallStarter starter,
      WarmPools pools,
      List<String> templates,
      String owner,
      Clock clock,
      Ids ids,
      Limits limits) {
    this.store = store;
    this.policies = policies;
    this.recorder = recorder;
    this.starter = starter;
    this.pools = pools;
    this.templates = List.copyOf(templates);
    this.owner = owner;
    this.clock = clock;
    this.ids = ids;
    this.limits = limits;
  }

  @Override
  public Provisioned create(Operation operation, ProvisionRequest request) {
    Optional<Provisioned> earlier = earlier(operation);
    if (earlier.isPresent()) {
      return earlier.get();
    }
    List<Violation> violations = new ArrayList<>();
    String template = request.template().orElse(templates.getFirst());
    if (!templates.contains(template)) {
      violations.add(
          new Violation(
              "/template",
              "unknown-template",
              "there is no template '"
                  + template
                  + "'; there are: "
                  + String.join(", ", templates)));
    }
    String policyName = request.policy().orElse(Policies.DEFAULT);
    Optional<Policy> policy = policies.named(policyName);
    if (policy.isEmpty()) {
      violations.add(
          new Violation(
              "/policy",
              "unknown-policy",
              "there is no policy '"
                  + policyName
                  + "'; there are: "
                  + String.join(", ", policies.names())));
      throw new ProblemException(new Problem.Invalid(violations));
    }
    if (request.run().isEmpty() && !request.outputs().isEmpty()) {
      violations.add(
          new Violation("/outputs", "bad-value", "outputs are what a run leaves: there is no run"));
    }
    if (request.run().isEmpty() && request.destroyOnExit().orElse(false)) {
      violations.add(
          new Violation(
              "/destroy", "bad-value", "on-exit needs a run whose exit it waits for: use on-ttl"));
    }
    Placement.Decided placement = Placement.decide(request, policy.get(), limits);
    violations.addAll(placement.violations());
    if (!violations.isEmpty()) {
      throw new ProblemException(new Problem.Invalid(violations));
    }
    return record(operation, request, template, policy.get(), placement);
  }

  /// Records what was decided: in a warm sandbox where there is one, else the way of one that has
  /// to be launched.
  private Provisioned record(
      Operation operation,
      ProvisionRequest request,
      String template,
      Policy policy,
      Placement.Decided placement) {
    if (request.run().filter(run -> !Recorder.allows(policy, run)).isPresent()) {
      return record(operation, request, template, policy, placement, new Claim.Cold(""))
          .orElseThrow();
    }
    PoolKey key = new PoolKey(template, placement.resources(), policy.boundary());
    while (true) {
      Claim claim = pools.claim(key);
      try {
        Optional<Provisioned> made = record(operation, request, template, policy, placement, claim);
        if (made.isPresent()) {
          return made.get();
        }
      } finally {
        if (claim instanceof Claim.Warm warm) {
          pools.settle(warm);
        }
      }
    }
  }

  /// @return empty where the warm one is no longer to be had, and nothing was recorded
  private Optional<Provisioned> record(
      Operation operation,
      ProvisionRequest request,
      String template,
      Policy policy,
      Placement.Decided placement,
      Claim claim) {
    Instant now = clock.instant();
    Instant expiresAt = now.plus(placement.ttl());
    boolean destroyOnExit = request.destroyOnExit().orElse(request.run().isPresent());
    List<Change> changes = new ArrayList<>();
    Id id;
    Phase phase;
    String reason;
    String bootId;
    switch (claim) {
      case Claim.Warm(WarmSandbox warm) -> {
        id = warm.id();
        // Its files are written before its first call, so with files it is not ready yet.
        phase = request.files().isEmpty() ? Phase.READY : Phase.STARTING;
        reason = "claimed from the pool";
        bootId = warm.bootId();
        changes.add(new Change.TakeWarm(WarmSandbox.State.WARM));
      }
      case Claim.Cold(String why) -> {
        id = ids.sandbox();
        phase = Phase.REQUESTED;
        reason = why;
        bootId = "";
      }
    }
    Optional<Recorder.Decided> run =
        request
            .run()
            .map(tool ->
                recorder.decide(
                    operation.principal(),
                    policy,
                    id,
                    expiresAt,
                    tool,
                    false,
                    request.outputs(),
                    destroyOnExit));
    boolean denied = run.filter(decided -> !decided.allowed()).isPresent();
    Sandbox sandbox =
        new Sandbox(
            id,
            operation.principal().tenant(),
            owner,
            template,
            placement.resources(),
            policy.reference(),
            request.env(),
            request.labels(),
            request.networkAllow(),
            destroyOnExit,
            phase,
            reason,
            bootId,
            now,
            expiresAt,
            Optional.empty());
    changes.add(
        new Change.CreateSandbox(
            sandbox,
            denied ? List.of() : request.files(),
            limits.sandboxesPerTenant(),
            limits.sandboxesPerOwner()));
    if (phase != Phase.REQUESTED) {
      changes.add(new Change.AppendEvent(Events.phase(now, Phase.REQUESTED, "")));
    }
    changes.add(new Change.AppendEvent(Events.phase(now, phase, reason)));
    run.ifPresent(decided -> changes.addAll(decided.changes()));
    if (denied) {
      // A refusal is recorded as one: the sandbox never is, and its log says why.
      String why = "its first call was denied";
      changes.add(
          new Change.MoveSandbox(Set.of(Phase.REQUESTED), Phase.GONE, why, Optional.empty(), now));
      changes.add(new Change.AppendEvent(Events.phase(now, Phase.GONE, why)));
    } else {
      recorder.claim(operation, run.map(d -> d.call().id())).ifPresent(changes::add);
    }
    switch (store.commit(new Commit(id, changes))) {
      case CommitResult.Committed _ -> {}
      case CommitResult.Refused refused -> {
        // An equal request that came first may have taken the last place.
        Optional<Provisioned> first = denied ? Optional.empty() : earlier(operation);
        if (first.isPresent()) {
          return first;
        }
        switch (refused.refusal()) {
          case TAKEN -> {
            return Optional.empty();
          }
          case QUOTA ->
              throw new ProblemException(
                  new Problem.Capacity(
                      "sandbox-quota",
                      "there are as many live sandboxes as allowed ("
                          + limits.sandboxesPerTenant()
                          + " for a tenant, "
                          + limits.sandboxesPerOwner()
                          + " here): destroy one, or try again later",
                      Duration.ofSeconds(5)));
          case KEY_TAKEN -> throw new IllegalStateException("a claimed key stands for nothing");
          case EXISTS, WRONG_PHASE, WRONG_OFFSET, ENDED ->
              throw new IllegalStateException("a new sandbox was refused: " + refused.refusal());
        }
      }
    }
    if (denied) {
      Recorder.Decided decided = run.orElseThrow();
      throw new ProblemException(
          new Problem.Denied(
              id,
              decided.call().id(),
              decided.decision().rules(),
              decided.decision().policy(),
              decided.decision().reason()));
    }
    Optional<Call> call = run.map(Recorder.Decided::call);
    starter.sandboxMade(sandbox, call);
    return Optional.of(new Provisioned(sandbox, call));
  }

  /// What this operation's idempotency key made before.
  private Optional<Provisioned> earlier(Operation operation) {
    return Recorder.key(operation)
        .flatMap(key -> store.keyedRequest(key, clock.instant()))
        .map(request -> {
          Gate.requireSameBody(operation, request.bodyHash());
          return new Provisioned(
              get(operation, request.sandbox()), request.call().flatMap(store::call));
        });
  }

  @Override
  public Sandbox get(Operation operation, Id id) {
    return Tenancy.sandbox(store, operation, id);
  }

  @Override
  public List<Sandbox> list(
      Operation operation,
      Map<String, String> labels,
      Set<Phase> phases,
      Optional<Id> after,
      int limit) {
    return store.sandboxes(
        operation.principal().tenant(), labels, phases, after, Math.min(limit, limits.pageSize()));
  }

  @Override
  public Sandbox patch(
      Operation operation, Id id, Optional<Duration> ttl, Optional<Map<String, String>> labels) {
    Sandbox sandbox = get(operation, id);
    Optional<Instant> expiresAt = ttl.map(t -> extended(sandbox, t));
    switch (store.commit(Commit.of(id, new Change.PatchSandbox(expiresAt, labels)))) {
      case CommitResult.Committed _ -> starter.sandboxChanged(id);
      case CommitResult.Refused _ ->
          throw new ProblemException(
              new Problem.Conflict("sandbox-gone", "the sandbox is no longer alive"));
    }
    return get(operation, id);
  }

  /// The policy's lifetime counts from the creation, however often the time is extended.
  private Instant extended(Sandbox sandbox, Duration ttl) {
    Policy policy = policies.byReference(sandbox.policy());
    Duration lifetime = policy.boundary().lifetime().orElse(limits.maxTtl());
    Instant latest = sandbox.createdAt().plus(lifetime);
    // Compared before it is added: a duration may be longer than time is.
    if (!ttl.isPositive()
        || ttl.compareTo(lifetime) > 0
        || clock.instant().plus(ttl).isAfter(latest)) {
      throw new ProblemException(
          Problem.Invalid.of(
              "/ttl",
              "not-allowed",
              "policy "
                  + sandbox.policy()
                  + " lets this sandbox live until "
                  + latest
                  + " (boundary.limits.lifetime)"));
    }
    return clock.instant().plus(ttl);
  }

  @Override
  public Sandbox destroy(Operation operation, Id id) {
    Sandbox sandbox = get(operation, id);
    Instant now = clock.instant();
    String reason = "destroyed by " + operation.principal().name();
    CommitResult outcome =
        store.commit(
            Commit.of(
                sandbox.id(),
                new Change.MoveSandbox(ALIVE, Phase.STOPPING, reason, Optional.empty(), now),
                new Change.AppendEvent(Events.phase(now, Phase.STOPPING, reason))));
    if (outcome instanceof CommitResult.Committed) {
      starter.sandboxChanged(id);
    }
    return get(operation, id);
  }

  @Override
  public Sandbox awaitReady(Operation operation, Id id, Duration timeout) {
    return await(
        operation,
        id,
        timeout,
        sandbox -> sandbox.phase() == Phase.READY || sandbox.phase().terminal());
  }

  @Override
  public Sandbox awaitEnd(Operation operation, Id id, Duration timeout) {
    return await(operation, id, timeout, sandbox -> sandbox.phase().terminal());
  }

  private Sandbox await(
      Operation operation,
      Id id,
      Duration timeout,
      java.util.function.Predicate<Sandbox> condition) {
    get(operation, id);
    return Waits.until(store, id, timeout, () -> store.sandbox(id).filter(condition))
        .orElseGet(() -> get(operation, id));
  }
}
