package dev.foredeck.store;

import static dev.foredeck.store.generated.Tables.API_KEY;
import static dev.foredeck.store.generated.Tables.CALL;
import static dev.foredeck.store.generated.Tables.CALL_ARTIFACT;
import static dev.foredeck.store.generated.Tables.COMMITTER;
import static dev.foredeck.store.generated.Tables.EVENT;
import static dev.foredeck.store.generated.Tables.IDEMPOTENCY_KEY;
import static dev.foredeck.store.generated.Tables.LOG;
import static dev.foredeck.store.generated.Tables.OUTPUT_CHUNK;
import static dev.foredeck.store.generated.Tables.POLICY_VERSION;
import static dev.foredeck.store.generated.Tables.SANDBOX;
import static dev.foredeck.store.generated.Tables.SANDBOX_FILE;
import static dev.foredeck.store.generated.Tables.TENANT;
import static dev.foredeck.store.generated.Tables.WARM_SANDBOX;

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import dev.foredeck.core.Id;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.pool.WarmSandbox;
import dev.foredeck.core.sandbox.InlineFile;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
import dev.foredeck.core.store.Event;
import dev.foredeck.core.store.IdempotencyKey;
import dev.foredeck.core.store.Store;
import dev.foredeck.core.store.TenantCursor;
import dev.foredeck.core.store.TenantEvent;
import dev.foredeck.core.store.TenantPage;
import dev.foredeck.protocol.Channel;
import dev.foredeck.store.generated.tables.records.ApiKeyRecord;
import dev.foredeck.store.generated.tables.records.CallRecord;
import dev.foredeck.store.generated.tables.records.EventRecord;
import dev.foredeck.store.generated.tables.records.SandboxRecord;
import java.sql.SQLException;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.NavigableMap;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Supplier;
import java.util.random.RandomGenerator;
import org.flywaydb.core.api.FlywayException;
import org.jooq.Condition;
import org.jooq.DSLContext;
import org.jooq.Field;
import org.jooq.JSONB;
import org.jooq.Record2;
import org.jooq.SQLDialect;
import org.jooq.exception.DataAccessException;
import org.jooq.impl.DSL;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// The store on PostgreSQL 15 or later. Writes go through [Committer]s (group commit), reads
/// through a pool, wakes through [Wakes].
///
/// Threading: every method may be called by any thread, and blocks. Commits of one log always go to
/// the same committer, so that two transactions of ours do not wait for each other's row.
public final class PostgresStore implements Store {
  private static final Logger LOGGER = LoggerFactory.getLogger(PostgresStore.class);

  /// While one waits for the disk the other decides.
  private static final int COMMITTERS = 2;

  private static final int POOL_SIZE = 16;
  private static final Duration POOL_WAIT = Duration.ofSeconds(5);

  /// How long commits wait for a database that is away; a restart takes less.
  private static final Duration PATIENCE = Duration.ofSeconds(10);

  /// Reads are asked again within this when their connection was lost.
  private static final Duration READ_PATIENCE = Duration.ofSeconds(3);

  private static final Duration READ_AGAIN_AFTER = Duration.ofMillis(50);
  private static final Duration KEY_LIFE = Duration.ofHours(24);
  private static final Duration MAINTAIN_EVERY = Duration.ofHours(1);
  private static final Duration FINISH_MAINTENANCE = Duration.ofSeconds(5);

  /// Longer than any committer goes on without a commit and is still remembered for.
  private static final Duration FORGET_COMMITTERS_AFTER = Duration.ofDays(30);

  private static final Lookup<SandboxRecord, Sandbox> SANDBOX_BY_ID =
      new Lookup<>(SANDBOX, SANDBOX.ID, SandboxRecord::new, Rows::sandbox);
  private static final Lookup<CallRecord, Call> CALL_BY_ID =
      new Lookup<>(CALL, CALL.ID, CallRecord::new, Rows::call);
  private static final Lookup<ApiKeyRecord, ApiKey> KEY_BY_HASH =
      new Lookup<>(API_KEY, API_KEY.SHA256, ApiKeyRecord::new, Rows::apiKey);

  private final HikariDataSource pool;
  private final DSLContext db;
  private final List<Committer> committers;
  private final Wakes wakes;
  private final Partitions partitions;
  private final WriteProbe probe;
  private final Clock clock;
  private final Thread maintenance;
  private volatile boolean closed;

  private PostgresStore(
      HikariDataSource pool,
      DSLContext db,
      List<Committer> committers,
      Wakes wakes,
      Partitions partitions,
      WriteProbe probe,
      Clock clock) {
    this.pool = pool;
    this.db = db;
    this.committers = committers;
    this.wakes = wakes;
    this.partitions = partitions;
    this.probe = probe;
    this.clock = clock;
    this.maintenance =
        Thread.ofPlatform().daemon().name("store-maintain").unstarted(this::maintain);
  }

  /// Checks the server, brings its schema up to date and connects.
  ///
  /// @param random for names that no other process has
  /// @param clock for partitions and the age of keys
  /// @throws IllegalStateException when the server is too old or would lose commits
  /// @throws Store.StoreUnavailableException when it does not answer
  public static PostgresStore open(DatabaseUrl database, RandomGenerator random, Clock clock) {
    System.setProperty("org.jooq.no-logo", "true");
    System.setProperty("org.jooq.no-tips", "true");
    Connections connections = new Connections(database);
    String origin = "c" + Long.toHexString(random.nextLong()) + Long.toHexString(random.nextLong());
    try {
      connections.openDurable().close();
      Migrations.run(database);
    } catch (SQLException e) {
      throw Faults.unavailable(e);
    } catch (FlywayException e) {
      Optional<SQLException> sql = Faults.sql(e);
      if (sql.isPresent() && Faults.of(sql.get()) != Faults.REFUSED) {
        throw Faults.unavailable(sql.get());
      }
      throw new IllegalStateException("cannot bring the database's schema up to date", e);
    }
    HikariDataSource pool = pool(database);
    DSLContext db = DSL.using(pool, SQLDialect.POSTGRES);
    Wakes wakes = new Wakes(connections, origin);
    WriteProbe probe = new WriteProbe(db);
    List<Committer> committers = new ArrayList<>();
    PostgresStore store = null;
    try {
      Partitions partitions = new Partitions(db);
      partitions.makeAhead(clock.instant());
      for (int i = 0; i < COMMITTERS; i++) {
        Committer committer = new Committer(connections, origin + "-" + i, wakes, probe, PATIENCE);
        committer.start();
        committers.add(committer);
      }
      store = new PostgresStore(pool, db, List.copyOf(committers), wakes, partitions, probe, clock);
      wakes.start();
      probe.start();
      store.maintenance.start();
      return store;
    } catch (SQLException e) {
      throw Faults.unavailable(e);
    } catch (DataAccessException e) {
      throw translated(e);
    } finally {
      if (store == null) {
        committers.forEach(Committer::close);
        pool.close();
      }
    }
  }

  private static HikariDataSource pool(DatabaseUrl database) {
    DatabaseUrl limited = database.with(Connections.DRIVER_LIMITS);
    HikariConfig config = new HikariConfig();
    config.setPoolName("store");
    config.setJdbcUrl(limited.jdbcUrl());
    if (!limited.user().isEmpty()) {
      config.setUsername(limited.user());
    }
    if (!limited.password().isEmpty()) {
      config.setPassword(limited.password());
    }
    config.setMaximumPoolSize(POOL_SIZE);
    config.setMinimumIdle(2);
    config.setConnectionTimeout(POOL_WAIT.toMillis());
    config.setValidationTimeout(2_000);
    config.setConnectionInitSql(Connections.LIMITS);
    config.setInitializationFailTimeout(-1);
    return new HikariDataSource(config);
  }

  // Writing.

  @Override
  public CommitResult commit(Commit commit) {
    int committer = Math.floorMod(commit.sandbox().hashCode(), committers.size());
    return committers.get(committer).commit(commit);
  }

  // Reading.

  private interface Reading<T> {
    T from(DSLContext db);
  }

  /// Reads, again for a while when the connection was lost: nothing has changed by it.
  private <T> T read(Reading<T> reading) {
    return patiently(() -> reading.from(db));
  }

  private <T> T patiently(Supplier<T> work) {
    long until = System.nanoTime() + READ_PATIENCE.toNanos();
    while (true) {
      try {
        return work.get();
      } catch (DataAccessException e) {
        boolean lost =
            Faults.sql(e)
                .map(Faults::of)
                .filter(fault -> fault == Faults.CONNECTION_LOST)
                .isPresent();
        if (!lost || closed || System.nanoTime() > until) {
          throw translated(e);
        }
        LockSupport.parkNanos(READ_AGAIN_AFTER.toNanos());
      }
    }
  }

  private static RuntimeException translated(DataAccessException e) {
    Optional<SQLException> sql = Faults.sql(e);
    if (sql.isPresent() && Faults.of(sql.get()) != Faults.REFUSED) {
      return Faults.unavailable(sql.get());
    }
    return new IllegalStateException("the database refused a statement", e);
  }

  @Override
  public Optional<Sandbox> sandbox(Id id) {
    return patiently(() -> SANDBOX_BY_ID.of(pool, id.value()));
  }

  @Override
  public List<Sandbox> sandboxes(
      Id tenant, Map<String, String> labels, Set<Phase> phases, Optional<Id> after, int limit) {
    List<Condition> conditions = new ArrayList<>();
    conditions.add(SANDBOX.TENANT.eq(tenant.value()));
    if (!labels.isEmpty()) {
      conditions.add(
          DSL.condition("{0} @> {1}", SANDBOX.LABELS, DSL.val(JSONB.valueOf(Json.write(labels)))));
    }
    if (!phases.isEmpty()) {
      conditions.add(SANDBOX.PHASE.in(phases.stream().map(Phase::wireName).toList()));
    }
    after.ifPresent(id -> conditions.add(SANDBOX.ID.lt(id.value())));
    return read(db ->
        db
            .selectFrom(SANDBOX)
            .where(conditions)
            .orderBy(SANDBOX.ID.desc())
            .limit(limit)
            .fetch()
            .stream()
            .map(Rows::sandbox)
            .toList());
  }

  @Override
  public List<Sandbox> liveSandboxes(String owner) {
    return read(db ->
        db
            .selectFrom(SANDBOX)
            .where(SANDBOX.OWNER.eq(owner), DSL.condition("phase not in ('gone', 'failed')"))
            .orderBy(SANDBOX.ID)
            .fetch()
            .stream()
            .map(Rows::sandbox)
            .toList());
  }

  @Override
  public Optional<WarmSandbox> warmSandbox(Id id) {
    return read(db ->
        db.selectFrom(WARM_SANDBOX)
            .where(WARM_SANDBOX.ID.eq(id.value()))
            .fetchOptional()
            .map(Rows::warmSandbox));
  }

  @Override
  public List<WarmSandbox> warmSandboxes(String owner) {
    return read(db ->
        db
            .selectFrom(WARM_SANDBOX)
            .where(WARM_SANDBOX.OWNER.eq(owner))
            .orderBy(WARM_SANDBOX.ID)
            .fetch()
            .stream()
            .map(Rows::warmSandbox)
            .toList());
  }

  @Override
  public List<InlineFile> files(Id sandbox) {
    return read(db ->
        db
            .selectFrom(SANDBOX_FILE)
            .where(SANDBOX_FILE.SANDBOX.eq(sandbox.value()))
            .orderBy(SANDBOX_FILE.POSITION)
            .fetch()
            .stream()
            .map(row -> new InlineFile(row.getPath(), row.getBytes()))
            .toList());
  }

  @Override
  public Optional<Call> call(Id id) {
    return patiently(() -> CALL_BY_ID.of(pool, id.value()));
  }

  @Override
  public List<Call> liveCalls(Id sandbox) {
    return read(db ->
        db
            .selectFrom(CALL)
            .where(
                CALL.SANDBOX.eq(sandbox.value()), DSL.condition("status in ('pending', 'running')"))
            .orderBy(CALL.ID)
            .fetch()
            .stream()
            .map(Rows::call)
            .toList());
  }

  /// The last event of a page. A program's text or a file that is inline makes an event of a
  /// megabyte: sizes are added up before anything is fetched.
  private static final String LAST_OF_PAGE =
      """
      (select max(seq) from (
        select seq, sum(size) over (order by seq) - size as before from (
          select seq, octet_length(data) as size from event
          where sandbox = {0} and seq > {1} order by seq limit {2}) one) page
      where before < greatest({3}, 1))\
      """;

  @Override
  public List<Event> events(Id sandbox, long afterSeq, int maxEvents, int maxBytes) {
    return read(db -> {
      Field<Long> last =
          DSL.field(
              LAST_OF_PAGE,
              Long.class,
              DSL.val(sandbox.value()),
              DSL.val(afterSeq),
              DSL.val(maxEvents),
              DSL.val(maxBytes));
      List<EventRecord> rows =
          db.selectFrom(EVENT)
              .where(EVENT.SANDBOX.eq(sandbox.value()), EVENT.SEQ.gt(afterSeq), EVENT.SEQ.le(last))
              .orderBy(EVENT.SEQ)
              .fetch();
      return new EventPage(rows, maxBytes)
          .joined((call, channel, from, to) -> chunks(db, call, channel, from, to));
    });
  }

  /// Places from a cursor's own on, whose event must be there as it was: else it was dropped, or
  /// the database went back to a time before it, and what came instead would be skipped.
  ///
  /// Sizes first, as above. Ordered by the index, and the few of one transaction by a sort.
  private static final String TENANT_PAGE =
      """
      select sandbox, seq, time, type, call, data, tenant, tx from (
        select *, sum(octet_length(data)) over (order by tx, sandbox, seq) - octet_length(data)
          as before
        from (
          select * from event
          where tenant = {0} and tx >= {1} and (tx > {1} or (sandbox, seq) >= ({2}, {3}))
            and tx < %s
          order by tx, sandbox, seq limit {4}) one) page
      where before < {5} order by tx, sandbox, seq\
      """
          .formatted(EventOrder.HORIZON);

  @Override
  public TenantPage tenantEvents(
      Id tenant, Optional<TenantCursor> after, int maxEvents, int maxBytes) {
    return read(db -> {
      // The cursor's own event comes along, and is worth no byte of the page.
      int own = after.isPresent() ? 1 : 0;
      List<EventRecord> rows =
          db.resultQuery(
                  TENANT_PAGE,
                  DSL.val(tenant.value()),
                  DSL.val(after.map(TenantCursor::tx).orElse(0L)),
                  DSL.val(after.map(cursor -> cursor.sandbox().value()).orElse("")),
                  DSL.val(after.map(TenantCursor::seq).orElse(0L)),
                  DSL.val(maxEvents + own),
                  DSL.val(Math.max(maxBytes, 1)))
              .fetchInto(EVENT);
      if (after.isPresent() && (rows.isEmpty() || !cursor(rows.getFirst()).equals(after.get()))) {
        return new TenantPage.CursorLost();
      }
      List<EventRecord> next = rows.subList(own, rows.size());
      List<Event> events =
          new EventPage(next, maxBytes)
              .joined((call, channel, from, to) -> chunks(db, call, channel, from, to));
      List<TenantEvent> page = new ArrayList<>();
      for (int i = 0; i < events.size(); i++) {
        page.add(new TenantEvent(cursor(next.get(i)), events.get(i)));
      }
      return new TenantPage.Events(page);
    });
  }

  private static TenantCursor cursor(EventRecord row) {
    return new TenantCursor(
        row.getTx(), new Id(row.getSandbox()), row.getSeq(), row.getTime().toInstant());
  }

  private static final String LAST_OF_TENANT =
      """
      select sandbox, seq, time, type, call, '' as data, tenant, tx from event
      where tenant = {0} and tx < %s
      order by tx desc, sandbox desc, seq desc limit 1\
      """
          .formatted(EventOrder.HORIZON);

  @Override
  public Optional<TenantCursor> lastOfTenant(Id tenant) {
    return read(db ->
        db.resultQuery(LAST_OF_TENANT, DSL.val(tenant.value())).fetchInto(EVENT).stream()
            .findFirst()
            .map(PostgresStore::cursor));
  }

  @Override
  public long logBefore(Id call) {
    return read(db ->
        db.select(CALL.LOG_BEFORE)
            .from(CALL)
            .where(CALL.ID.eq(call.value()))
            .fetchOptional(CALL.LOG_BEFORE)
            .orElse(0L));
  }

  /// Chunks that have a byte in `[from, to)`, by offset.
  private static NavigableMap<Long, byte[]> chunks(
      DSLContext db, Id call, Channel channel, long from, long to) {
    Condition ofChannel =
        OUTPUT_CHUNK.CALL.eq(call.value()).and(OUTPUT_CHUNK.CHANNEL.eq(channel.wireName()));
    NavigableMap<Long, byte[]> found = new TreeMap<>();
    for (Record2<Long, byte[]> row :
        db.select(OUTPUT_CHUNK.OFFSET, OUTPUT_CHUNK.BYTES)
            .from(OUTPUT_CHUNK)
            .where(
                ofChannel,
                OUTPUT_CHUNK.OFFSET.lt(to),
                OUTPUT_CHUNK.OFFSET.ge(
                    DSL.coalesce(
                        DSL.field(
                            DSL.select(DSL.max(OUTPUT_CHUNK.OFFSET))
                                .from(OUTPUT_CHUNK)
                                .where(ofChannel, OUTPUT_CHUNK.OFFSET.le(from))),
                        DSL.val(from))))
            .fetch()) {
      found.put(row.value1(), row.value2());
    }
    return found;
  }

  @Override
  public long lastSeq(Id sandbox) {
    return read(db ->
        db.select(LOG.LAST_SEQ)
            .from(LOG)
            .where(LOG.SANDBOX.eq(sandbox.value()))
            .fetchOptional(LOG.LAST_SEQ)
            .orElse(0L));
  }

  @Override
  public byte[] output(Id call, Channel channel, long offset, int maxBytes) {
    return read(db ->
        EventPage.slice(
            chunks(db, call, channel, offset, Math.addExact(offset, maxBytes)), offset, maxBytes));
  }

  @Override
  public long recordedBytes(Id call, Channel channel) {
    var recorded = channel == Channel.STDERR ? CALL.STDERR_RECORDED : CALL.STDOUT_RECORDED;
    return read(db ->
        db.select(recorded)
            .from(CALL)
            .where(CALL.ID.eq(call.value()))
            // Retention drops output before it drops calls.
            .andExists(
                DSL.selectOne()
                    .from(OUTPUT_CHUNK)
                    .where(
                        OUTPUT_CHUNK.CALL.eq(call.value()),
                        OUTPUT_CHUNK.CHANNEL.eq(channel.wireName()),
                        OUTPUT_CHUNK.OFFSET.eq(0L)))
            .fetchOptional(recorded)
            .orElse(0L));
  }

  @Override
  public List<Artifact> artifacts(Id call) {
    return read(db ->
        db.select(CALL_ARTIFACT.PATH, CALL_ARTIFACT.SIZE_BYTES, CALL_ARTIFACT.SHA256)
            .from(CALL_ARTIFACT)
            .where(CALL_ARTIFACT.CALL.eq(call.value()))
            .orderBy(CALL_ARTIFACT.PATH)
            .fetch(row -> new Artifact(row.value1(), row.value2(), row.value3())));
  }

  @Override
  public Optional<byte[]> artifact(Id call, String path) {
    return read(db ->
        db.select(CALL_ARTIFACT.BYTES)
            .from(CALL_ARTIFACT)
            .where(CALL_ARTIFACT.CALL.eq(call.value()), CALL_ARTIFACT.PATH.eq(path))
            .fetchOptional(CALL_ARTIFACT.BYTES));
  }

  @Override
  public Optional<KeyedRequest> keyedRequest(IdempotencyKey key, Instant now) {
    return read(db ->
        db.selectFrom(IDEMPOTENCY_KEY)
            .where(
                IDEMPOTENCY_KEY.TENANT.eq(key.tenant().value()),
                IDEMPOTENCY_KEY.ROUTE.eq(key.route()),
                IDEMPOTENCY_KEY.KEY.eq(key.key()))
            .fetchOptional()
            .filter(row -> row.getClaimedAt().toInstant().plus(KEY_LIFE).isAfter(now))
            .map(row ->
                new KeyedRequest(
                    row.getBodyHash(),
                    new Id(row.getSandbox()),
                    Optional.ofNullable(row.getCall()).map(Id::new))));
  }

  @Override
  public Subscription subscribe(Id grows, Runnable wake) {
    return wakes.subscribe(grows, wake);
  }

  // Tenants, keys, policies: written rarely, and each by itself.

  @Override
  public void ensureTenant(Id tenant, String name) {
    read(db ->
        db.insertInto(TENANT, TENANT.ID, TENANT.NAME)
            .values(tenant.value(), name)
            .onConflictDoNothing()
            .execute());
  }

  @Override
  public Optional<Id> tenantNamed(String name) {
    return read(db ->
        db.select(TENANT.ID)
            .from(TENANT)
            .where(TENANT.NAME.eq(name))
            .fetchOptional(TENANT.ID)
            .map(Id::new));
  }

  @Override
  public void createKey(ApiKey key) {
    // Asked again after a lost connection it may be there already.
    read(db ->
        db.insertInto(API_KEY)
            .set(API_KEY.ID, key.id().value())
            .set(API_KEY.TENANT, key.tenant().value())
            .set(API_KEY.NAME, key.name())
            .set(API_KEY.ROLE, key.role().wireName())
            .set(API_KEY.SHA256, key.sha256())
            .set(API_KEY.CREATED_AT, Wire.time(key.createdAt()))
            .set(API_KEY.REVOKED_AT, key.revokedAt().map(Wire::time).orElse(null))
            .onConflict(API_KEY.ID)
            .doNothing()
            .execute());
  }

  @Override
  public Optional<ApiKey> keyByHash(String sha256) {
    return patiently(() -> KEY_BY_HASH.of(pool, sha256));
  }

  @Override
  public Optional<ApiKey> key(Id id) {
    return read(db ->
        db.selectFrom(API_KEY).where(API_KEY.ID.eq(id.value())).fetchOptional().map(Rows::apiKey));
  }

  @Override
  public List<ApiKey> keys(Id tenant) {
    return read(db ->
        db
            .selectFrom(API_KEY)
            .where(API_KEY.TENANT.eq(tenant.value()))
            .orderBy(API_KEY.ID)
            .fetch()
            .stream()
            .map(Rows::apiKey)
            .toList());
  }

  @Override
  public boolean revokeKey(Id tenant, Id key, Instant at) {
    return read(db ->
        db.update(API_KEY)
            .set(API_KEY.REVOKED_AT, Wire.time(at))
            .where(
                API_KEY.TENANT.eq(tenant.value()),
                API_KEY.ID.eq(key.value()),
                API_KEY.REVOKED_AT.isNull())
            .execute())
        == 1;
  }

  @Override
  public void savePolicy(String name, String version, String bundle) {
    read(db ->
        db.insertInto(
                POLICY_VERSION, POLICY_VERSION.NAME, POLICY_VERSION.VERSION, POLICY_VERSION.BUNDLE)
            .values(name, version, bundle)
            .onConflictDoNothing()
            .execute());
  }

  @Override
  public Optional<String> policy(String name, String version) {
    return read(db ->
        db.select(POLICY_VERSION.BUNDLE)
            .from(POLICY_VERSION)
            .where(POLICY_VERSION.NAME.eq(name), POLICY_VERSION.VERSION.eq(version))
            .fetchOptional(POLICY_VERSION.BUNDLE));
  }

  // Looking after.

  @Override
  public void retain(Instant outputBefore, Instant eventsBefore) {
    patiently(() -> {
      partitions.retain(outputBefore, eventsBefore);
      return true;
    });
  }

  private void maintain() {
    while (!closed) {
      try {
        partitions.makeAhead(clock.instant());
        Instant now = clock.instant();
        // Twice the life: clocks of replicas differ.
        db.deleteFrom(IDEMPOTENCY_KEY)
            .where(IDEMPOTENCY_KEY.CLAIMED_AT.lt(Wire.time(now.minus(KEY_LIFE.multipliedBy(2)))))
            .execute();
        db.deleteFrom(COMMITTER)
            .where(COMMITTER.AT.lt(Wire.time(now.minus(FORGET_COMMITTERS_AFTER))))
            .execute();
      } catch (DataAccessException e) {
        // A store that is closed within its first round has lost its pool, not its database.
        if (!closed) {
          LOGGER.warn("the database's hourly round failed; the next one tries again", e);
        }
      }
      try {
        TimeUnit.NANOSECONDS.sleep(MAINTAIN_EVERY.toNanos());
      } catch (InterruptedException _) {
        // close() wakes us.
      }
    }
  }

  @Override
  public boolean healthy() {
    try {
      return probe.able() && Integer.valueOf(1).equals(db.selectOne().fetchOne(0, Integer.class));
    } catch (DataAccessException e) {
      LOGGER.debug("the database is not healthy", e);
      return false;
    }
  }

  @Override
  public void close() {
    closed = true;
    probe.close();
    committers.forEach(Committer::close);
    wakes.close();
    maintenance.interrupt();
    try {
      // What it is at is short; cut in the middle of it, its connection is reported as broken.
      maintenance.join(FINISH_MAINTENANCE);
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    }
    pool.close();
  }
}
