package dev.foredeck.store;

import static dev.foredeck.store.generated.Tables.CALL;
import static dev.foredeck.store.generated.Tables.CALL_ARTIFACT;
import static dev.foredeck.store.generated.Tables.EVENT;
import static dev.foredeck.store.generated.Tables.IDEMPOTENCY_KEY;
import static dev.foredeck.store.generated.Tables.LOG;
import static dev.foredeck.store.generated.Tables.OUTPUT_CHUNK;
import static dev.foredeck.store.generated.Tables.SANDBOX;
import static dev.foredeck.store.generated.Tables.SANDBOX_FILE;

import dev.foredeck.core.Id;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallResult;
import dev.foredeck.core.gate.CallStatus;
import dev.foredeck.core.sandbox.InlineFile;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Change.Refusal;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
import dev.foredeck.core.store.IdempotencyKey;
import dev.foredeck.core.store.NewEvent;
import dev.foredeck.protocol.Channel;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.time.Duration;
import java.time.Instant;
import java.time.OffsetDateTime;
import java.time.temporal.ChronoUnit;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/// Many commits in one transaction of two round trips: lock and load what their conditions need,
/// decide all of them in memory, write what is left. A refused commit is undone in memory, so it
/// costs no savepoint and leaves nothing.
///
/// Invariants: every log's row is locked before anything of its sandbox is read, so what was loaded
/// stays true until the transaction ends. Locks are taken in one order (this committer, logs by id,
/// warm sandboxes by id, advisory locks by number), so two replicas cannot wait for each other. A
/// quota or an idempotency key is guarded by an advisory lock, because there may be no row to lock.
///
/// Threading: one thread, one use.
final class Batch {
  private static final Duration KEY_LIFE = Duration.ofHours(24);

  private static final UnnestSql INSERT_LOG =
      UnnestSql.insert(LOG, LOG.SANDBOX, LOG.LAST_SEQ, LOG.TENANT);
  private static final UnnestSql UPDATE_LOG =
      UnnestSql.update(LOG, LOG.SANDBOX, LOG.LAST_SEQ, LOG.TENANT);
  private static final UnnestSql INSERT_SANDBOX =
      UnnestSql.insert(
          SANDBOX,
          SANDBOX.ID,
          SANDBOX.TENANT,
          SANDBOX.OWNER,
          SANDBOX.TEMPLATE,
          SANDBOX.CPU_MILLIS,
          SANDBOX.MEMORY_BYTES,
          SANDBOX.DISK_BYTES,
          SANDBOX.PIDS,
          SANDBOX.POLICY,
          SANDBOX.ENV,
          SANDBOX.LABELS,
          SANDBOX.NETWORK_ALLOW,
          SANDBOX.DESTROY_ON_EXIT,
          SANDBOX.PHASE,
          SANDBOX.REASON,
          SANDBOX.BOOT_ID,
          SANDBOX.CREATED_AT,
          SANDBOX.EXPIRES_AT,
          SANDBOX.ENDED_AT);
  private static final UnnestSql UPDATE_SANDBOX =
      UnnestSql.update(
          SANDBOX,
          SANDBOX.ID,
          SANDBOX.PHASE,
          SANDBOX.REASON,
          SANDBOX.BOOT_ID,
          SANDBOX.EXPIRES_AT,
          SANDBOX.LABELS,
          SANDBOX.ENDED_AT);
  private static final UnnestSql INSERT_FILE =
      UnnestSql.insert(
          SANDBOX_FILE,
          SANDBOX_FILE.SANDBOX,
          SANDBOX_FILE.POSITION,
          SANDBOX_FILE.PATH,
          SANDBOX_FILE.BYTES);
  private static final UnnestSql INSERT_CALL =
      UnnestSql.insert(
          CALL,
          CALL.ID,
          CALL.SANDBOX,
          CALL.TENANT,
          CALL.TOOL,
          CALL.ARGUMENTS,
          CALL.DIGEST,
          CALL.PRINCIPAL,
          CALL.BACKGROUND,
          CALL.OUTPUTS,
          CALL.DESTROYS_SANDBOX,
          CALL.REQUESTED_AT,
          CALL.DEADLINE,
          CALL.STATUS,
          CALL.STARTED_AT,
          CALL.PID,
          CALL.STDOUT_BYTES,
          CALL.STDERR_BYTES,
          CALL.STDOUT_RECORDED,
          CALL.STDERR_RECORDED,
          CALL.TRUNCATED,
          CALL.EXIT_CODE,
          CALL.SIGNAL,
          CALL.END_REASON,
          CALL.CPU_MICROS,
          CALL.PEAK_MEMORY_BYTES,
          CALL.WALL_MILLIS,
          CALL.OUTPUT_BYTES,
          CALL.ENDED_AT,
          CALL.LOG_BEFORE);
  private static final UnnestSql UPDATE_CALL =
      UnnestSql.update(
          CALL,
          CALL.ID,
          CALL.STATUS,
          CALL.STARTED_AT,
          CALL.PID,
          CALL.STDOUT_BYTES,
          CALL.STDERR_BYTES,
          CALL.STDOUT_RECORDED,
          CALL.STDERR_RECORDED,
          CALL.TRUNCATED,
          CALL.EXIT_CODE,
          CALL.SIGNAL,
          CALL.END_REASON,
          CALL.CPU_MICROS,
          CALL.PEAK_MEMORY_BYTES,
          CALL.WALL_MILLIS,
          CALL.OUTPUT_BYTES,
          CALL.ENDED_AT);
  private static final UnnestSql INSERT_CHUNK =
      UnnestSql.insert(
          OUTPUT_CHUNK,
          OUTPUT_CHUNK.CALL,
          OUTPUT_CHUNK.CHANNEL,
          OUTPUT_CHUNK.OFFSET,
          OUTPUT_CHUNK.BYTES);
  private static final UnnestSql INSERT_EVENT =
      UnnestSql.insert(
          EVENT,
          EVENT.SANDBOX,
          EVENT.SEQ,
          EVENT.TIME,
          EVENT.TYPE,
          EVENT.CALL,
          EVENT.DATA,
          EVENT.TENANT,
          EVENT.TX);
  private static final UnnestSql UPSERT_ARTIFACT =
      UnnestSql.insert(
          CALL_ARTIFACT,
          "on conflict (call, path) do update set size_bytes = excluded.size_bytes,"
              + " sha256 = excluded.sha256, bytes = excluded.bytes",
          CALL_ARTIFACT.CALL,
          CALL_ARTIFACT.PATH,
          CALL_ARTIFACT.SIZE_BYTES,
          CALL_ARTIFACT.SHA256,
          CALL_ARTIFACT.BYTES);
  private static final UnnestSql UPSERT_KEY =
      UnnestSql.insert(
          IDEMPOTENCY_KEY,
          "on conflict (tenant, route, key) do update set body_hash = excluded.body_hash,"
              + " sandbox = excluded.sandbox, call = excluded.call,"
              + " claimed_at = excluded.claimed_at",
          IDEMPOTENCY_KEY.TENANT,
          IDEMPOTENCY_KEY.ROUTE,
          IDEMPOTENCY_KEY.KEY,
          IDEMPOTENCY_KEY.BODY_HASH,
          IDEMPOTENCY_KEY.SANDBOX,
          IDEMPOTENCY_KEY.CALL,
          IDEMPOTENCY_KEY.CLAIMED_AT);

  private final List<Commit> commits;

  // What was loaded, as this batch has changed it.
  private final Map<Id, LogRow> logs = new TreeMap<>();
  private final Map<Id, SandboxRow> sandboxes = new HashMap<>();
  private final Map<Id, CallRow> calls = new HashMap<>();
  private final Map<Id, Long> liveCalls = new HashMap<>();
  private final Map<Id, Long> liveOfTenant = new HashMap<>();
  private final Map<String, Long> liveOfOwner = new HashMap<>();
  private final Map<IdempotencyKey, Instant> keys = new HashMap<>();

  // What is to be written beside the rows above.
  private final List<@Nullable Object[]> events = new ArrayList<>();
  private final List<@Nullable Object[]> chunks = new ArrayList<>();
  private final Map<ArtifactKey, @Nullable Object[]> artifacts = new LinkedHashMap<>();
  private final Map<IdempotencyKey, @Nullable Object[]> claims = new LinkedHashMap<>();
  private final Set<Id> forgotten = new TreeSet<>();

  private final Deque<Runnable> undo = new ArrayDeque<>();
  private final WarmRows warm = new WarmRows(undo);

  /// This transaction's place in the order of tenants' feeds.
  private long tx;

  private record ArtifactKey(Id call, String path) {}

  private static final class LogRow {
    private long lastSeq;
    private boolean exists;
    private boolean changed;
    // Null for a log without a sandbox.
    private @Nullable Id tenant;
  }

  private static final class SandboxRow {
    private @Nullable Sandbox created;
    private List<InlineFile> files = List.of();
    private Id tenant;
    private String owner;
    private Phase phase;
    private boolean changed;
    // Null where it stays as it is.
    private @Nullable Phase newPhase;
    private @Nullable String reason;
    private @Nullable String bootId;
    private @Nullable Instant expiresAt;
    private @Nullable Map<String, String> labels;
    private @Nullable Instant endedAt;

    private SandboxRow(Id tenant, String owner, Phase phase) {
      this.tenant = tenant;
      this.owner = owner;
      this.phase = phase;
    }
  }

  private static final class CallRow {
    private final Id sandbox;
    private @Nullable Call created;
    private long logBefore;
    private CallStatus status;
    private long stdoutBytes;
    private long stderrBytes;
    private long stdoutRecorded;
    private long stderrRecorded;
    private boolean changed;
    // Null where it stays as it is.
    private @Nullable Instant startedAt;
    private @Nullable Long pid;
    private @Nullable Boolean truncated;
    private @Nullable CallResult result;

    private CallRow(Id sandbox, CallStatus status) {
      this.sandbox = sandbox;
      this.status = status;
    }
  }

  Batch(List<Commit> commits) {
    this.commits = List.copyOf(commits);
  }

  /// Checks what needs no database, so that one caller's mistake does not reach others' batch.
  static void check(Commit commit) {
    for (Change change : commit.changes()) {
      switch (change) {
        case Change.CreateSandbox c -> {
          if (!c.sandbox().id().equals(commit.sandbox())) {
            throw new IllegalArgumentException("the commit is of another sandbox");
          }
        }
        case Change.CreateCall c -> {
          if (!c.call().sandbox().equals(commit.sandbox())) {
            throw new IllegalArgumentException("the call is of another sandbox");
          }
        }
        case Change.AddWarm c -> {
          if (!c.warm().id().equals(commit.sandbox())) {
            throw new IllegalArgumentException("the commit is of another sandbox");
          }
        }
        case Change.SkipOutput c -> {
          if (c.length() < 0) {
            throw new IllegalArgumentException("skipped length is negative");
          }
        }
        case Change.MoveSandbox _,
            Change.PatchSandbox _,
            Change.ForgetFiles _,
            Change.StartCall _,
            Change.AppendOutput _,
            Change.SaveArtifact _,
            Change.EndCall _,
            Change.AppendEvent _,
            Change.ClaimKey _,
            Change.MoveWarm _,
            Change.TakeWarm _ -> {}
      }
    }
  }

  /// About how many bytes a commit sends.
  static long weight(Commit commit) {
    long bytes = 512;
    for (Change change : commit.changes()) {
      bytes +=
          switch (change) {
            case Change.CreateSandbox c ->
                1_000 + c.files().stream().mapToLong(file -> file.bytes().length).sum();
            case Change.CreateCall c -> 1_000 + c.call().arguments().length();
            case Change.AppendOutput c -> 200 + c.bytes().length;
            case Change.SaveArtifact c -> 200 + c.bytes().length;
            case Change.AppendEvent _ -> 1_000;
            case Change.MoveSandbox _,
                Change.PatchSandbox _,
                Change.ForgetFiles _,
                Change.StartCall _,
                Change.SkipOutput _,
                Change.EndCall _,
                Change.ClaimKey _,
                Change.AddWarm _,
                Change.MoveWarm _,
                Change.TakeWarm _ ->
                200;
          };
    }
    return bytes;
  }

  // Round trip one.

  /// Begins the transaction: locks, then loads.
  ///
  /// @return the committer's last durable batch
  long load(Connection connection, String committer) throws SQLException {
    Set<Id> wantedSandboxes = new TreeSet<>();
    Set<Id> wantedCalls = new TreeSet<>();
    Set<Id> countedCalls = new TreeSet<>();
    Set<Id> tenants = new TreeSet<>();
    Set<String> owners = new TreeSet<>();
    List<IdempotencyKey> wantedKeys = new ArrayList<>();
    for (Commit commit : commits) {
      logs.put(commit.sandbox(), new LogRow());
      for (Change change : commit.changes()) {
        switch (change) {
          case Change.CreateSandbox c -> {
            wantedSandboxes.add(commit.sandbox());
            tenants.add(c.sandbox().tenant());
            owners.add(c.sandbox().owner());
          }
          case Change.MoveSandbox _, Change.PatchSandbox _ -> wantedSandboxes.add(commit.sandbox());
          case Change.CreateCall c -> {
            wantedSandboxes.add(commit.sandbox());
            wantedCalls.add(c.call().id());
            countedCalls.add(commit.sandbox());
          }
          case Change.StartCall c -> wantedCalls.add(c.call());
          case Change.AppendOutput c -> wantedCalls.add(c.call());
          case Change.SkipOutput c -> wantedCalls.add(c.call());
          case Change.EndCall c -> wantedCalls.add(c.call());
          case Change.ClaimKey c -> wantedKeys.add(c.key());
          case Change.AddWarm _, Change.MoveWarm _, Change.TakeWarm _ ->
              warm.want(commit.sandbox());
          case Change.ForgetFiles _, Change.SaveArtifact _, Change.AppendEvent _ -> {}
        }
      }
    }
    Pipeline pipeline = new Pipeline();
    List<Pipeline.Results> results = new ArrayList<>();
    long[] lastBatch = {-1};
    pipeline.add(
        "select batch, (select base from event_order) + pg_current_xact_id()::text::int8"
            + " from committer where id = ? for update",
        committer);
    results.add(rows -> {
      while (rows.next()) {
        lastBatch[0] = rows.getLong(1);
        tx = rows.getLong(2);
      }
    });
    pipeline.add(
        "select sandbox, last_seq, tenant from log where sandbox = any(?) order by sandbox"
            + " for update",
        texts(logs.keySet()));
    results.add(rows -> {
      while (rows.next()) {
        LogRow log = got(logs, new Id(rows.getString(1)));
        log.exists = true;
        log.lastSeq = rows.getLong(2);
        String tenant = rows.getString(3);
        log.tenant = tenant == null ? null : new Id(tenant);
      }
    });
    warm.load(pipeline, results);
    Set<Long> advisory = new TreeSet<>();
    tenants.forEach(tenant -> advisory.add(number("tenant", tenant.value())));
    owners.forEach(owner -> advisory.add(number("owner", owner)));
    wantedKeys.forEach(k -> advisory.add(number("key", k.tenant().value(), k.route(), k.key())));
    if (!advisory.isEmpty()) {
      pipeline.add(
          "select pg_advisory_xact_lock(n) from unnest(?::int8[]) as v(n)",
          Pipeline.longs(List.copyOf(advisory)));
      results.add(_ -> {});
    }
    if (!wantedSandboxes.isEmpty()) {
      pipeline.add(
          "select id, tenant, owner, phase from sandbox where id = any(?)", texts(wantedSandboxes));
      results.add(rows -> {
        while (rows.next()) {
          sandboxes.put(
              new Id(rows.getString(1)),
              new SandboxRow(
                  new Id(rows.getString(2)), rows.getString(3), Wire.phase(rows.getString(4))));
        }
      });
    }
    if (!wantedCalls.isEmpty()) {
      pipeline.add(
          "select id, sandbox, status, stdout_bytes, stderr_bytes, stdout_recorded,"
              + " stderr_recorded from call where id = any(?)",
          texts(wantedCalls));
      results.add(rows -> {
        while (rows.next()) {
          CallRow call = new CallRow(new Id(rows.getString(2)), Wire.status(rows.getString(3)));
          call.stdoutBytes = rows.getLong(4);
          call.stderrBytes = rows.getLong(5);
          call.stdoutRecorded = rows.getLong(6);
          call.stderrRecorded = rows.getLong(7);
          calls.put(new Id(rows.getString(1)), call);
        }
      });
    }
    if (!countedCalls.isEmpty()) {
      countedCalls.forEach(id -> liveCalls.put(id, 0L));
      pipeline.add(
          "select sandbox, count(*) from call where sandbox = any(?)"
              + " and status in ('pending', 'running') group by sandbox",
          texts(countedCalls));
      results.add(rows -> counts(rows, (id, n) -> liveCalls.put(new Id(id), n)));
    }
    if (!tenants.isEmpty()) {
      tenants.forEach(id -> liveOfTenant.put(id, 0L));
      owners.forEach(owner -> liveOfOwner.put(owner, 0L));
      pipeline.add(
          "select tenant, count(*) from sandbox where tenant = any(?)"
              + " and phase not in ('gone', 'failed') group by tenant",
          texts(tenants));
      results.add(rows -> counts(rows, (id, n) -> liveOfTenant.put(new Id(id), n)));
      pipeline.add(
          "select owner, count(*) from sandbox where owner = any(?)"
              + " and phase not in ('gone', 'failed') group by owner",
          Pipeline.texts(owners));
      results.add(rows -> counts(rows, liveOfOwner::put));
    }
    if (!wantedKeys.isEmpty()) {
      pipeline.add(
          "select k.tenant, k.route, k.key, k.claimed_at from idempotency_key k"
              + " join unnest(?::text[], ?::text[], ?::text[]) as v(tenant, route, key)"
              + " on (k.tenant, k.route, k.key) = (v.tenant, v.route, v.key)",
          texts(wantedKeys.stream().map(IdempotencyKey::tenant).toList()),
          Pipeline.texts(wantedKeys.stream().map(IdempotencyKey::route).toList()),
          Pipeline.texts(wantedKeys.stream().map(IdempotencyKey::key).toList()));
      results.add(rows -> {
        while (rows.next()) {
          keys.put(
              new IdempotencyKey(new Id(rows.getString(1)), rows.getString(2), rows.getString(3)),
              rows.getObject(4, OffsetDateTime.class).toInstant());
        }
      });
    }
    pipeline.run(connection, results.toArray(new Pipeline.Results[0]));
    return lastBatch[0];
  }

  private interface Count {
    void put(String of, Long count);
  }

  private static void counts(ResultSet rows, Count count) throws SQLException {
    while (rows.next()) {
      count.put(rows.getString(1), rows.getLong(2));
    }
  }

  static Object texts(Iterable<Id> ids) {
    List<String> values = new ArrayList<>();
    ids.forEach(id -> values.add(id.value()));
    return Pipeline.texts(values);
  }

  private static <K, V> V got(Map<K, V> map, K key) {
    V value = map.get(key);
    if (value == null) {
      throw new IllegalStateException("the database answered with a row nobody asked for");
    }
    return value;
  }

  /// The number of an advisory lock. Two things that share one only wait for each other.
  private static long number(String... parts) {
    try {
      MessageDigest sha = MessageDigest.getInstance("SHA-256");
      for (String part : parts) {
        sha.update(part.getBytes(StandardCharsets.UTF_8));
        sha.update((byte) 0);
      }
      return ByteBuffer.wrap(sha.digest()).getLong();
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every JDK has SHA-256", e);
    }
  }

  // Deciding.

  /// Applies every commit in order.
  List<CommitResult> decide() {
    List<CommitResult> results = new ArrayList<>();
    for (Commit commit : commits) {
      results.add(decide(commit));
    }
    return results;
  }

  private CommitResult decide(Commit commit) {
    undo.clear();
    for (int i = 0; i < commit.changes().size(); i++) {
      Change change = commit.changes().get(i);
      Optional<Refusal> refusal = apply(commit.sandbox(), change);
      if (refusal.isPresent()) {
        while (!undo.isEmpty()) {
          undo.pop().run();
        }
        return new CommitResult.Refused(i, change, refusal.get());
      }
    }
    return new CommitResult.Committed(got(logs, commit.sandbox()).lastSeq);
  }

  private Optional<Refusal> apply(Id sandbox, Change change) {
    return switch (change) {
      case Change.CreateSandbox c -> createSandbox(c);
      case Change.MoveSandbox c -> moveSandbox(sandbox, c);
      case Change.PatchSandbox c -> patchSandbox(sandbox, c);
      case Change.ForgetFiles _ -> forgetFiles(sandbox);
      case Change.CreateCall c -> createCall(sandbox, c);
      case Change.StartCall c -> startCall(sandbox, c);
      case Change.AppendOutput c -> appendOutput(sandbox, c);
      case Change.SkipOutput c ->
          advance(sandbox, c.call(), c.channel(), c.offset(), c.length(), true);
      case Change.SaveArtifact c -> saveArtifact(c);
      case Change.EndCall c -> endCall(sandbox, c);
      case Change.AppendEvent c -> appendEvent(sandbox, c.event());
      case Change.ClaimKey c -> claimKey(sandbox, c);
      case Change.AddWarm c -> warm.add(c);
      case Change.MoveWarm c -> warm.move(sandbox, c);
      case Change.TakeWarm c -> warm.take(sandbox, c);
    };
  }

  private <K, V> void put(Map<K, V> map, K key, V value) {
    V old = map.put(key, value);
    undo.push(() -> {
      if (old == null) {
        map.remove(key);
      } else {
        map.put(key, old);
      }
    });
  }

  private <K> void count(Map<K, Long> counts, K key, long by) {
    Long old = counts.get(key);
    if (old != null) {
      put(counts, key, old + by);
    }
  }

  private Optional<Refusal> createSandbox(Change.CreateSandbox c) {
    Sandbox made = c.sandbox();
    if (sandboxes.containsKey(made.id())) {
      return Optional.of(Refusal.EXISTS);
    }
    if (!made.phase().terminal()) {
      if (liveOfTenant.getOrDefault(made.tenant(), 0L) >= c.maxLiveOfTenant()
          || liveOfOwner.getOrDefault(made.owner(), 0L) >= c.maxLiveOfOwner()) {
        return Optional.of(Refusal.QUOTA);
      }
      count(liveOfTenant, made.tenant(), 1);
      count(liveOfOwner, made.owner(), 1);
    }
    SandboxRow row = new SandboxRow(made.tenant(), made.owner(), made.phase());
    row.created = made;
    row.files = c.files();
    put(sandboxes, made.id(), row);
    LogRow log = got(logs, made.id());
    boolean changed = log.changed;
    Id tenant = log.tenant;
    log.changed = true;
    log.tenant = made.tenant();
    undo.push(() -> {
      log.changed = changed;
      log.tenant = tenant;
    });
    return Optional.empty();
  }

  private Optional<Refusal> moveSandbox(Id id, Change.MoveSandbox c) {
    SandboxRow row = sandboxes.get(id);
    if (row == null || !c.from().contains(row.phase)) {
      return Optional.of(Refusal.WRONG_PHASE);
    }
    Phase phase = row.phase;
    Phase newPhase = row.newPhase;
    String reason = row.reason;
    String bootId = row.bootId;
    Instant endedAt = row.endedAt;
    boolean changed = row.changed;
    undo.push(() -> {
      row.phase = phase;
      row.newPhase = newPhase;
      row.reason = reason;
      row.bootId = bootId;
      row.endedAt = endedAt;
      row.changed = changed;
    });
    row.phase = c.to();
    row.newPhase = c.to();
    row.reason = c.reason();
    c.bootId().ifPresent(boot -> row.bootId = boot);
    row.changed = true;
    if (c.to().terminal()) {
      row.endedAt = c.at();
    }
    if (phase.terminal() != c.to().terminal()) {
      long by = c.to().terminal() ? -1 : 1;
      count(liveOfTenant, row.tenant, by);
      count(liveOfOwner, row.owner, by);
    }
    return Optional.empty();
  }

  private Optional<Refusal> patchSandbox(Id id, Change.PatchSandbox c) {
    SandboxRow row = sandboxes.get(id);
    if (row == null || row.phase == Phase.STOPPING || row.phase.terminal()) {
      return Optional.of(Refusal.WRONG_PHASE);
    }
    Instant expiresAt = row.expiresAt;
    Map<String, String> labels = row.labels;
    boolean changed = row.changed;
    undo.push(() -> {
      row.expiresAt = expiresAt;
      row.labels = labels;
      row.changed = changed;
    });
    c.expiresAt().ifPresent(at -> row.expiresAt = at);
    c.labels().ifPresent(now -> row.labels = Map.copyOf(now));
    row.changed = true;
    return Optional.empty();
  }

  private Optional<Refusal> forgetFiles(Id id) {
    SandboxRow row = sandboxes.get(id);
    if (row != null && !row.files.isEmpty()) {
      List<InlineFile> files = row.files;
      row.files = List.of();
      undo.push(() -> row.files = files);
    }
    if (forgotten.add(id)) {
      undo.push(() -> forgotten.remove(id));
    }
    return Optional.empty();
  }

  private Optional<Refusal> createCall(Id sandbox, Change.CreateCall c) {
    Call made = c.call();
    if (calls.containsKey(made.id())) {
      return Optional.of(Refusal.EXISTS);
    }
    SandboxRow row = sandboxes.get(sandbox);
    if (row == null) {
      return Optional.of(Refusal.WRONG_PHASE);
    }
    if (!made.status().ended()) {
      if (row.phase == Phase.STOPPING || row.phase.terminal()) {
        return Optional.of(Refusal.WRONG_PHASE);
      }
      if (liveCalls.getOrDefault(sandbox, 0L) >= c.maxLiveOfSandbox()) {
        return Optional.of(Refusal.QUOTA);
      }
      count(liveCalls, sandbox, 1);
    }
    CallRow call = new CallRow(sandbox, made.status());
    call.created = made;
    call.logBefore = got(logs, sandbox).lastSeq;
    call.stdoutBytes = made.stdoutBytes();
    call.stderrBytes = made.stderrBytes();
    put(calls, made.id(), call);
    return Optional.empty();
  }

  private Optional<CallRow> alive(Id sandbox, Id call) {
    return Optional.ofNullable(calls.get(call))
        .filter(row -> row.sandbox.equals(sandbox) && !row.status.ended());
  }

  private void undoTo(CallRow row) {
    CallStatus status = row.status;
    long stdoutBytes = row.stdoutBytes;
    long stderrBytes = row.stderrBytes;
    long stdoutRecorded = row.stdoutRecorded;
    long stderrRecorded = row.stderrRecorded;
    boolean changed = row.changed;
    Instant startedAt = row.startedAt;
    Long pid = row.pid;
    Boolean truncated = row.truncated;
    CallResult result = row.result;
    undo.push(() -> {
      row.status = status;
      row.stdoutBytes = stdoutBytes;
      row.stderrBytes = stderrBytes;
      row.stdoutRecorded = stdoutRecorded;
      row.stderrRecorded = stderrRecorded;
      row.changed = changed;
      row.startedAt = startedAt;
      row.pid = pid;
      row.truncated = truncated;
      row.result = result;
    });
  }

  private Optional<Refusal> startCall(Id sandbox, Change.StartCall c) {
    Optional<CallRow> found =
        alive(sandbox, c.call()).filter(row -> row.status == CallStatus.PENDING);
    if (found.isEmpty()) {
      return Optional.of(Refusal.ENDED);
    }
    CallRow row = found.get();
    undoTo(row);
    row.status = CallStatus.RUNNING;
    row.pid = c.pid();
    row.startedAt = c.at();
    row.changed = true;
    return Optional.empty();
  }

  private Optional<Refusal> appendOutput(Id sandbox, Change.AppendOutput c) {
    Optional<Refusal> refusal =
        advance(sandbox, c.call(), c.channel(), c.offset(), c.bytes().length, false);
    if (refusal.isEmpty() && c.bytes().length > 0) {
      add(
          chunks,
          new @Nullable Object[] {c.call().value(), c.channel().wireName(), c.offset(), c.bytes()});
    }
    return refusal;
  }

  private void add(List<@Nullable Object[]> rows, @Nullable Object[] row) {
    rows.add(row);
    undo.push(rows::removeLast);
  }

  private Optional<Refusal> advance(
      Id sandbox, Id call, Channel channel, long offset, long length, boolean skips) {
    Optional<CallRow> found = alive(sandbox, call);
    if (found.isEmpty()) {
      return Optional.of(Refusal.ENDED);
    }
    CallRow row = found.get();
    boolean stderr = channel == Channel.STDERR;
    if (offset != (stderr ? row.stderrBytes : row.stdoutBytes)) {
      return Optional.of(Refusal.WRONG_OFFSET);
    }
    undoTo(row);
    long end = Math.addExact(offset, length);
    if (stderr) {
      row.stderrRecorded = !skips && row.stderrRecorded == offset ? end : row.stderrRecorded;
      row.stderrBytes = end;
    } else {
      row.stdoutRecorded = !skips && row.stdoutRecorded == offset ? end : row.stdoutRecorded;
      row.stdoutBytes = end;
    }
    if (skips) {
      row.truncated = true;
    }
    row.changed = true;
    return Optional.empty();
  }

  private Optional<Refusal> saveArtifact(Change.SaveArtifact c) {
    put(
        artifacts,
        new ArtifactKey(c.call(), c.path()),
        new @Nullable Object[] {
          c.call().value(), c.path(), (long) c.bytes().length, c.sha256(), c.bytes()
        });
    return Optional.empty();
  }

  private Optional<Refusal> endCall(Id sandbox, Change.EndCall c) {
    Optional<CallRow> found = alive(sandbox, c.call());
    if (found.isEmpty()) {
      return Optional.of(Refusal.ENDED);
    }
    CallRow row = found.get();
    undoTo(row);
    row.status = c.result().status();
    row.result = c.result();
    row.changed = true;
    count(liveCalls, sandbox, -1);
    return Optional.empty();
  }

  private Optional<Refusal> appendEvent(Id sandbox, NewEvent event) {
    LogRow log = got(logs, sandbox);
    long lastSeq = log.lastSeq;
    boolean changed = log.changed;
    undo.push(() -> {
      log.lastSeq = lastSeq;
      log.changed = changed;
    });
    log.lastSeq = lastSeq + 1;
    log.changed = true;
    add(
        events,
        new @Nullable Object[] {
          sandbox.value(),
          log.lastSeq,
          time(event.time()),
          event.type(),
          event.call().map(Id::value).orElse(null),
          event.data().toString(),
          log.tenant == null ? null : log.tenant.value(),
          log.tenant == null ? null : tx
        });
    return Optional.empty();
  }

  private Optional<Refusal> claimKey(Id sandbox, Change.ClaimKey c) {
    Instant claimed = keys.get(c.key());
    if (claimed != null && claimed.plus(KEY_LIFE).isAfter(c.at())) {
      return Optional.of(Refusal.KEY_TAKEN);
    }
    put(keys, c.key(), c.at());
    put(
        claims,
        c.key(),
        new @Nullable Object[] {
          c.key().tenant().value(),
          c.key().route(),
          c.key().key(),
          c.bodyHash(),
          sandbox.value(),
          c.call().map(Id::value).orElse(null),
          time(c.at())
        });
    return Optional.empty();
  }

  // Round trip two.

  /// Whether anything is to be written.
  boolean changes() {
    return !events.isEmpty()
        || !chunks.isEmpty()
        || !artifacts.isEmpty()
        || !claims.isEmpty()
        || !forgotten.isEmpty()
        || warm.changed()
        || logs.values().stream().anyMatch(log -> log.changed)
        || sandboxes.values().stream().anyMatch(row -> row.changed || row.created != null)
        || calls.values().stream().anyMatch(row -> row.changed || row.created != null);
  }

  /// The logs that have grown, and the tenants whose they are.
  Set<Id> grown() {
    Set<Id> grown = new TreeSet<>();
    for (@Nullable Object[] row : events) {
      Id log = new Id(String.valueOf(row[0]));
      grown.add(log);
      Id tenant = got(logs, log).tenant;
      if (tenant != null) {
        grown.add(tenant);
      }
    }
    return grown;
  }

  /// Writes everything and commits.
  void write(Connection connection, String committer, long batch) throws SQLException {
    Pipeline pipeline = new Pipeline();
    List<@Nullable Object[]> newLogs = new ArrayList<>();
    List<@Nullable Object[]> changedLogs = new ArrayList<>();
    logs.forEach((id, log) -> {
      if (log.changed) {
        (log.exists ? changedLogs : newLogs)
            .add(
                new @Nullable Object[] {
                  id.value(), log.lastSeq, log.tenant == null ? null : log.tenant.value()
                });
      }
    });
    pipeline.add(INSERT_LOG, newLogs).add(UPDATE_LOG, changedLogs);
    if (!forgotten.isEmpty()) {
      pipeline.add("delete from sandbox_file where sandbox = any(?)", texts(forgotten));
    }
    warm.write(pipeline);
    List<@Nullable Object[]> newSandboxes = new ArrayList<>();
    List<@Nullable Object[]> changedSandboxes = new ArrayList<>();
    List<@Nullable Object[]> newFiles = new ArrayList<>();
    sandboxes.forEach((id, row) -> {
      Sandbox created = row.created;
      if (created != null) {
        newSandboxes.add(inserted(created, row));
        for (int i = 0; i < row.files.size(); i++) {
          InlineFile file = row.files.get(i);
          newFiles.add(new @Nullable Object[] {id.value(), i, file.path(), file.bytes()});
        }
      } else if (row.changed) {
        changedSandboxes.add(updated(id, row));
      }
    });
    pipeline
        .add(INSERT_SANDBOX, newSandboxes)
        .add(UPDATE_SANDBOX, changedSandboxes)
        .add(INSERT_FILE, newFiles);
    List<@Nullable Object[]> newCalls = new ArrayList<>();
    List<@Nullable Object[]> changedCalls = new ArrayList<>();
    calls.forEach((id, row) -> {
      Call created = row.created;
      if (created != null) {
        newCalls.add(inserted(created, row));
      } else if (row.changed) {
        changedCalls.add(updated(id, row));
      }
    });
    pipeline
        .add(INSERT_CALL, newCalls)
        .add(UPDATE_CALL, changedCalls)
        .add(INSERT_CHUNK, chunks)
        .add(UPSERT_ARTIFACT, List.copyOf(artifacts.values()))
        .add(UPSERT_KEY, List.copyOf(claims.values()))
        .add(INSERT_EVENT, events)
        .add(
            "update committer set batch = ?, at = transaction_timestamp() where id = ?",
            batch,
            committer)
        .add("commit");
    pipeline.run(connection);
  }

  private static @Nullable Object[] inserted(Sandbox s, SandboxRow row) {
    Instant endedAt = row.endedAt == null ? s.endedAt().orElse(null) : row.endedAt;
    return new @Nullable Object[] {
      s.id().value(),
      s.tenant().value(),
      s.owner(),
      s.template(),
      s.resources().cpuMillis(),
      s.resources().memoryBytes(),
      s.resources().diskBytes(),
      s.resources().pids(),
      s.policy(),
      Json.write(s.env()),
      Json.write(row.labels == null ? s.labels() : row.labels),
      s.networkAllow().map(Json::write).orElse(null),
      s.destroyOnExit(),
      row.phase.wireName(),
      row.reason == null ? s.reason() : row.reason,
      row.bootId == null ? s.bootId() : row.bootId,
      time(s.createdAt()),
      time(row.expiresAt == null ? s.expiresAt() : row.expiresAt),
      optionalTime(endedAt)
    };
  }

  private static @Nullable Object[] updated(Id id, SandboxRow row) {
    return new @Nullable Object[] {
      id.value(),
      row.newPhase == null ? null : row.newPhase.wireName(),
      row.reason,
      row.bootId,
      optionalTime(row.expiresAt),
      row.labels == null ? null : Json.write(row.labels),
      optionalTime(row.endedAt)
    };
  }

  private static @Nullable Object[] inserted(Call c, CallRow row) {
    CallResult result = row.result == null ? c.result().orElse(null) : row.result;
    return new @Nullable Object[] {
      c.id().value(),
      c.sandbox().value(),
      c.tenant().value(),
      c.tool(),
      c.arguments(),
      c.digest(),
      c.principal().value(),
      c.background(),
      Json.write(c.outputs()),
      c.destroysSandbox(),
      time(c.requestedAt()),
      time(c.deadline()),
      row.status.wireName(),
      optionalTime(row.startedAt == null ? c.startedAt().orElse(null) : row.startedAt),
      row.pid == null ? c.pid() : row.pid,
      row.stdoutBytes,
      row.stderrBytes,
      row.stdoutRecorded,
      row.stderrRecorded,
      row.truncated == null ? c.truncated() : row.truncated,
      result == null ? null : result.exitCode(),
      result == null ? null : result.signal(),
      result == null ? null : result.reason(),
      result == null ? null : result.cpuMicros(),
      result == null ? null : result.peakMemoryBytes(),
      result == null ? null : result.wallMillis(),
      result == null ? null : result.outputBytes(),
      result == null ? null : time(result.endedAt()),
      row.logBefore
    };
  }

  private static @Nullable Object[] updated(Id id, CallRow row) {
    CallResult result = row.result;
    return new @Nullable Object[] {
      id.value(),
      row.status.wireName(),
      optionalTime(row.startedAt),
      row.pid,
      row.stdoutBytes,
      row.stderrBytes,
      row.stdoutRecorded,
      row.stderrRecorded,
      row.truncated,
      result == null ? null : result.exitCode(),
      result == null ? null : result.signal(),
      result == null ? null : result.reason(),
      result == null ? null : result.cpuMicros(),
      result == null ? null : result.peakMemoryBytes(),
      result == null ? null : result.wallMillis(),
      result == null ? null : result.outputBytes(),
      result == null ? null : time(result.endedAt())
    };
  }

  private static @Nullable String optionalTime(@Nullable Instant instant) {
    return instant == null ? null : time(instant);
  }

  static String time(Instant instant) {
    return Wire.clamped(instant).truncatedTo(ChronoUnit.MICROS).toString();
  }
}
