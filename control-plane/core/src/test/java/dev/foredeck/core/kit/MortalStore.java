package dev.foredeck.core.kit;

import dev.foredeck.core.Id;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.pool.WarmSandbox;
import dev.foredeck.core.sandbox.InlineFile;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
import dev.foredeck.core.store.Event;
import dev.foredeck.core.store.IdempotencyKey;
import dev.foredeck.core.store.Store;
import dev.foredeck.core.store.TenantCursor;
import dev.foredeck.core.store.TenantPage;
import dev.foredeck.protocol.Channel;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// One control plane's handle on a store: dies with it, before and after every commit.
public final class MortalStore implements Store {
  private final Store inner;
  private final Mortality mortality;

  public MortalStore(Store inner, Mortality mortality) {
    this.inner = inner;
    this.mortality = mortality;
  }

  @Override
  public CommitResult commit(Commit commit) {
    return mortality.undivided(() -> {
      mortality.at("commit.before");
      Optional<String> warm = ofPool(commit);
      warm.ifPresent(kind -> mortality.at("commit.before." + kind));
      CommitResult result = inner.commit(commit);
      mortality.at("commit.after");
      warm.ifPresent(kind -> mortality.at("commit.after." + kind));
      return result;
    });
  }

  /// What a commit does to a warm sandbox, as a point to die at: `AddWarm`, `Claim`, ...
  private static Optional<String> ofPool(Commit commit) {
    Change first = commit.changes().getFirst();
    return switch (first) {
      case Change.TakeWarm _ when commit.changes().size() > 1 -> Optional.of("Claim");
      case Change.TakeWarm _, Change.MoveWarm _, Change.AddWarm _ ->
          Optional.of(first.getClass().getSimpleName());
      default -> Optional.empty();
    };
  }

  @Override
  public Optional<Sandbox> sandbox(Id id) {
    mortality.check();
    return inner.sandbox(id);
  }

  @Override
  public List<Sandbox> sandboxes(
      Id tenant, Map<String, String> labels, Set<Phase> phases, Optional<Id> after, int limit) {
    mortality.check();
    return inner.sandboxes(tenant, labels, phases, after, limit);
  }

  @Override
  public List<Sandbox> liveSandboxes(String owner) {
    mortality.check();
    return inner.liveSandboxes(owner);
  }

  @Override
  public Optional<WarmSandbox> warmSandbox(Id id) {
    mortality.check();
    return inner.warmSandbox(id);
  }

  @Override
  public List<WarmSandbox> warmSandboxes(String owner) {
    mortality.check();
    return inner.warmSandboxes(owner);
  }

  @Override
  public List<InlineFile> files(Id sandbox) {
    mortality.check();
    return inner.files(sandbox);
  }

  @Override
  public Optional<Call> call(Id id) {
    mortality.check();
    return inner.call(id);
  }

  @Override
  public List<Call> liveCalls(Id sandbox) {
    mortality.check();
    return inner.liveCalls(sandbox);
  }

  @Override
  public List<Event> events(Id sandbox, long afterSeq, int maxEvents, int maxBytes) {
    mortality.check();
    return inner.events(sandbox, afterSeq, maxEvents, maxBytes);
  }

  @Override
  public TenantPage tenantEvents(
      Id tenant, Optional<TenantCursor> after, int maxEvents, int maxBytes) {
    mortality.check();
    return inner.tenantEvents(tenant, after, maxEvents, maxBytes);
  }

  @Override
  public Optional<TenantCursor> lastOfTenant(Id tenant) {
    mortality.check();
    return inner.lastOfTenant(tenant);
  }

  @Override
  public long logBefore(Id call) {
    mortality.check();
    return inner.logBefore(call);
  }

  @Override
  public long lastSeq(Id sandbox) {
    mortality.check();
    return inner.lastSeq(sandbox);
  }

  @Override
  public byte[] output(Id call, Channel channel, long offset, int maxBytes) {
    mortality.check();
    return inner.output(call, channel, offset, maxBytes);
  }

  @Override
  public long recordedBytes(Id call, Channel channel) {
    mortality.check();
    return inner.recordedBytes(call, channel);
  }

  @Override
  public List<Artifact> artifacts(Id call) {
    mortality.check();
    return inner.artifacts(call);
  }

  @Override
  public Optional<byte[]> artifact(Id call, String path) {
    mortality.check();
    return inner.artifact(call, path);
  }

  @Override
  public Optional<KeyedRequest> keyedRequest(IdempotencyKey key, Instant now) {
    mortality.check();
    return inner.keyedRequest(key, now);
  }

  @Override
  public Subscription subscribe(Id sandbox, Runnable wake) {
    mortality.check();
    return inner.subscribe(sandbox, wake);
  }

  @Override
  public void ensureTenant(Id tenant, String name) {
    mortality.check();
    inner.ensureTenant(tenant, name);
  }

  @Override
  public Optional<Id> tenantNamed(String name) {
    mortality.check();
    return inner.tenantNamed(name);
  }

  @Override
  public void createKey(ApiKey key) {
    mortality.check();
    inner.createKey(key);
  }

  @Override
  public Optional<ApiKey> keyByHash(String sha256) {
    mortality.check();
    return inner.keyByHash(sha256);
  }

  @Override
  public Optional<ApiKey> key(Id id) {
    mortality.check();
    return inner.key(id);
  }

  @Override
  public List<ApiKey> keys(Id tenant) {
    mortality.check();
    return inner.keys(tenant);
  }

  @Override
  public boolean revokeKey(Id tenant, Id key, Instant at) {
    mortality.check();
    return inner.revokeKey(tenant, key, at);
  }

  @Override
  public void savePolicy(String name, String version, String bundle) {
    mortality.check();
    inner.savePolicy(name, version, bundle);
  }

  @Override
  public Optional<String> policy(String name, String version) {
    mortality.check();
    return inner.policy(name, version);
  }

  @Override
  public void retain(Instant outputBefore, Instant eventsBefore) {
    mortality.check();
    inner.retain(outputBefore, eventsBefore);
  }

  @Override
  public boolean healthy() {
    mortality.check();
    return inner.healthy();
  }

  @Override
  public void close() {}
}
