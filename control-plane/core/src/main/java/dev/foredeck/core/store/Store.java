package dev.foredeck.core.store;

import dev.foredeck.core.Id;
import dev.foredeck.core.Role;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.pool.WarmSandbox;
import dev.foredeck.core.sandbox.InlineFile;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.protocol.Channel;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// Durable state. Writes go through [#commit]; everything it has answered `Committed` survives a
/// crash of the process, of the database and of the machine. Methods block; all may throw
/// [StoreUnavailableException], after which the outcome of a commit is unknown: the caller reads
/// again before it acts.
public interface Store extends AutoCloseable {

  /// Applies all changes in one transaction, which may be shared with other commits (group commit).
  CommitResult commit(Commit commit);

  Optional<Sandbox> sandbox(Id id);

  /// A tenant's sandboxes, newest first.
  ///
  /// @param labels all of which must match
  /// @param phases any of which; empty for every phase
  /// @param after the last id of the page before
  List<Sandbox> sandboxes(
      Id tenant, Map<String, String> labels, Set<Phase> phases, Optional<Id> after, int limit);

  /// The sandboxes that a replica has to look after: neither gone nor failed.
  List<Sandbox> liveSandboxes(String owner);

  Optional<WarmSandbox> warmSandbox(Id id);

  /// The warm sandboxes of a replica, in every state, oldest first.
  List<WarmSandbox> warmSandboxes(String owner);

  /// The files that came with a sandbox's request, until they are forgotten.
  List<InlineFile> files(Id sandbox);

  Optional<Call> call(Id id);

  /// A sandbox's calls that have not ended, oldest first.
  List<Call> liveCalls(Id sandbox);

  /// Events after `afterSeq`, oldest first, output joined in. At most `maxEvents`, about `maxBytes`
  /// of output and about as much of other data; at least one event when there is one.
  List<Event> events(Id sandbox, long afterSeq, int maxEvents, int maxBytes);

  /// A tenant's events of all its logs after `after`, in the tenant's order, output joined in.
  /// Every event comes once to a reader that follows the cursors, whoever commits meanwhile; an
  /// event waits for transactions that began before its own. Bounds as of [#events].
  ///
  /// @param after the oldest that is kept, where empty
  TenantPage tenantEvents(Id tenant, Optional<TenantCursor> after, int maxEvents, int maxBytes);

  /// The last event that [#tenantEvents] would give now.
  Optional<TenantCursor> lastOfTenant(Id tenant);

  /// The last seq that a call's log had before the call: its events come after it. 0 for a call
  /// that is not known.
  long logBefore(Id call);

  /// The seq of the last event of a log, 0 when there is none.
  long lastSeq(Id sandbox);

  /// Recorded bytes of a channel from `offset`, at most `maxBytes`; empty at the end or where bytes
  /// were skipped.
  byte[] output(Id call, Channel channel, long offset, int maxBytes);

  /// The recorded (not skipped) extent of a channel: bytes `[0, recorded)` can be read.
  long recordedBytes(Id call, Channel channel);

  /// Copied-out files of a call, without their bytes.
  List<Artifact> artifacts(Id call);

  Optional<byte[]> artifact(Id call, String path);

  record Artifact(String path, long sizeBytes, String sha256) {}

  /// What an idempotency key stands for, if it is younger than 24 h.
  Optional<KeyedRequest> keyedRequest(IdempotencyKey key, Instant now);

  record KeyedRequest(String bodyHash, Id sandbox, Optional<Id> call) {}

  /// Calls `wake` soon after commits to a log, by this process or another. A hint: it may come
  /// twice, late, or for nothing; `wake` must not block.
  ///
  /// @param grows a sandbox, for its log, or a tenant, for the logs of all its sandboxes
  Subscription subscribe(Id grows, Runnable wake);

  interface Subscription extends AutoCloseable {
    @Override
    void close();
  }

  /// Makes the tenant if it is not there.
  void ensureTenant(Id tenant, String name);

  Optional<Id> tenantNamed(String name);

  void createKey(ApiKey key);

  Optional<ApiKey> keyByHash(String sha256);

  Optional<ApiKey> key(Id id);

  List<ApiKey> keys(Id tenant);

  /// @return whether it was there and not yet revoked
  boolean revokeKey(Id tenant, Id key, Instant at);

  /// @param sha256 of the secret, hexadecimal
  record ApiKey(
      Id id,
      Id tenant,
      String name,
      Role role,
      String sha256,
      Instant createdAt,
      Optional<Instant> revokedAt) {}

  /// Keeps a policy's source (with all that it extends) under its version. Idempotent.
  void savePolicy(String name, String version, String bundle);

  Optional<String> policy(String name, String version);

  /// Drops output older than `outputBefore` and events and calls older than `eventsBefore`, by
  /// partition.
  void retain(Instant outputBefore, Instant eventsBefore);

  /// Whether the database answers, and takes writes as far as is known.
  boolean healthy();

  @Override
  void close();

  /// The database did not answer, or answered that it cannot (full disk, shutting down).
  final class StoreUnavailableException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    public StoreUnavailableException(String message, Throwable cause) {
      super(message, cause);
    }
  }
}
