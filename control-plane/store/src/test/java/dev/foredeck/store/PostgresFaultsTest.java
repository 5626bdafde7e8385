package dev.foredeck.store;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
import dev.foredeck.core.store.Event;
import dev.foredeck.core.store.IdempotencyKey;
import dev.foredeck.core.store.Store;
import dev.foredeck.core.store.Store.StoreUnavailableException;
import dev.foredeck.protocol.Channel;
import dev.foredeck.store.embedded.EmbeddedPostgres;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.SecureRandom;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.LongStream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/// What the store does when the database is killed, full, unsafe, or shared with another replica.
final class PostgresFaultsTest {
  private static @Nullable TestDatabase database;

  private final Ids ids = new Ids(Clock.fixed(StoreWork.NOW, ZoneOffset.UTC), new SecureRandom());

  @BeforeAll
  static void start() throws Exception {
    database = TestDatabase.start();
  }

  @AfterAll
  static void stop() {
    if (database != null) {
      database.close();
    }
  }

  private static TestDatabase database() {
    TestDatabase started = database;
    if (started == null) {
      throw new IllegalStateException("not started");
    }
    return started;
  }

  private static PostgresStore open() {
    return open(database().url());
  }

  private static PostgresStore open(DatabaseUrl url) {
    return PostgresStore.open(url, new SecureRandom(), Clock.fixed(StoreWork.NOW, ZoneOffset.UTC));
  }

  private static void sql(String... statements) throws SQLException {
    DatabaseUrl url = database().url();
    try (Connection connection =
            DriverManager.getConnection(url.jdbcUrl(), url.user(), url.password());
        Statement statement = connection.createStatement()) {
      for (String text : statements) {
        statement.execute(text);
      }
    }
  }

  private static List<String> ask(String query) throws SQLException {
    DatabaseUrl url = database().url();
    List<String> found = new ArrayList<>();
    try (Connection connection =
            DriverManager.getConnection(url.jdbcUrl(), url.user(), url.password());
        Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery(query)) {
      while (rows.next()) {
        found.add(rows.getString(1));
      }
    }
    return found;
  }

  /// Writers to several logs while something bad happens: what was acknowledged is there once, what
  /// was not is there at most once, and the logs have no gap.
  private void losesNothing(Store store, int logs, Duration atLeast, Fault fault) throws Exception {
    AtomicBoolean stop = new AtomicBoolean();
    List<Writer> writers = new ArrayList<>();
    for (int i = 0; i < logs; i++) {
      Id sandbox = StoreWork.created(store, ids);
      Call call = StoreWork.call(ids, sandbox);
      StoreWork.committed(store.commit(Commit.of(sandbox, new Change.CreateCall(call, 1))));
      writers.add(new Writer(sandbox, call.id(), new HashSet<>(), new HashSet<>()));
    }
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<Future<?>> running = new ArrayList<>();
      for (Writer writer : writers) {
        running.add(threads.submit(() -> write(store, writer, stop)));
      }
      long until = System.nanoTime() + atLeast.toNanos();
      fault.happen();
      while (System.nanoTime() < until) {
        LockSupport.parkNanos(10_000_000);
      }
      stop.set(true);
      for (Future<?> writer : running) {
        writer.get(120, TimeUnit.SECONDS);
      }
    }
    for (Writer writer : writers) {
      List<Event> log = StoreWork.log(store, writer.log());
      assertThat(log)
          .extracting(Event::seq)
          .isEqualTo(LongStream.rangeClosed(1, log.size()).boxed().toList());
      List<String> notes = log.stream().map(event -> event.data().path("note").asText()).toList();
      assertThat(writer.acknowledged()).isNotEmpty();
      assertThat(notes).doesNotHaveDuplicates().containsAll(writer.acknowledged());
      Set<String> possible = new HashSet<>(writer.acknowledged());
      possible.addAll(writer.unknown());
      assertThat(possible).containsAll(notes);
      assertThat(new String(store.output(writer.call(), Channel.STDOUT, 0, 100 << 20), UTF_8))
          .isEqualTo(String.join("\n", notes) + "\n");
    }
  }

  /// Of one thread, read by others when it has ended.
  private record Writer(Id log, Id call, Set<String> acknowledged, Set<String> unknown) {}

  private static void write(Store store, Writer writer, AtomicBoolean stop) {
    long offset = 0;
    for (int i = 0; !stop.get(); i++) {
      String note = "note-" + i;
      byte[] bytes = (note + "\n").getBytes(UTF_8);
      Commit commit =
          Commit.of(
              writer.log(),
              StoreWork.note(note),
              new Change.AppendOutput(writer.call(), Channel.STDOUT, offset, bytes));
      try {
        StoreWork.committed(store.commit(commit));
        writer.acknowledged().add(note);
        offset += bytes.length;
      } catch (StoreUnavailableException e) {
        writer.unknown().add(note);
        // As a caller must: read again before acting.
        offset = committedOffset(store, writer.call());
      }
    }
  }

  private interface Fault {
    void happen() throws Exception;
  }

  private static long committedOffset(Store store, Id call) {
    while (true) {
      try {
        return store.call(call).orElseThrow().stdoutBytes();
      } catch (StoreUnavailableException _) {
        LockSupport.parkNanos(50_000_000);
      }
    }
  }

  @Test
  void losesNothingWhenTheServerIsKilled() throws Exception {
    try (PostgresStore store = open()) {
      losesNothing(
          store,
          12,
          Duration.ofSeconds(8),
          () -> {
            for (int kill = 0; kill < 4; kill++) {
              LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(900));
              long pid = database().server().pid();
              assertThat(ProcessHandle.of(pid).orElseThrow().destroyForcibly()).isTrue();
              long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
              while (database().server().pid() == pid && System.nanoTime() < until) {
                LockSupport.parkNanos(1_000_000);
              }
            }
          });
      assertThat(store.healthy()).isTrue();
    }
  }

  @Test
  void losesNothingWhenItsConnectionsAreCut() throws Exception {
    try (PostgresStore store = open()) {
      losesNothing(
          store,
          6,
          Duration.ofSeconds(3),
          () -> {
            for (int cut = 0; cut < 20; cut++) {
              LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(100));
              sql(
                  "select pg_terminate_backend(pid) from pg_stat_activity"
                      + " where pid <> pg_backend_pid() and backend_type = 'client backend'");
            }
          });
    }
  }

  @Test
  void refusesAServerThatCouldLoseCommits() throws Exception {
    for (String setting : List.of("fsync", "full_page_writes", "synchronous_commit")) {
      sql("alter system set " + setting + " = off", "select pg_reload_conf()");
      try {
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
        while (!ask("show " + setting).equals(List.of("off")) && System.nanoTime() < until) {
          LockSupport.parkNanos(10_000_000);
        }
        assertThatThrownBy(PostgresFaultsTest::open)
            .isInstanceOf(IllegalStateException.class)
            .hasMessageContaining(setting);
      } finally {
        sql("alter system reset " + setting, "select pg_reload_conf()");
      }
      long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
      while (!ask("show " + setting).equals(List.of("on")) && System.nanoTime() < until) {
        LockSupport.parkNanos(10_000_000);
      }
    }
  }

  @Test
  void saysThatNobodyAnswers() {
    assertThatThrownBy(() -> open(new DatabaseUrl("jdbc:postgresql://127.0.0.1:1/x", "u", "p")))
        .isInstanceOf(StoreUnavailableException.class)
        .hasMessageContaining("does not answer");
    DatabaseUrl right = database().url();
    assertThatThrownBy(() -> open(new DatabaseUrl(right.jdbcUrl(), right.user(), "wrong")))
        .isInstanceOf(StoreUnavailableException.class)
        .hasMessageContaining("password");
  }

  @Test
  void aCommitThatTheDatabaseRefusesHarmsNoOther() throws Exception {
    try (PostgresStore store = open();
        var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      Id log = StoreWork.created(store, ids);
      CountDownLatch start = new CountDownLatch(1);
      List<Future<CommitResult>> good = new ArrayList<>();
      List<Future<CommitResult>> bad = new ArrayList<>();
      for (int i = 0; i < 50; i++) {
        String note = "n" + i;
        good.add(
            threads.submit(() -> {
              start.await();
              return store.commit(Commit.of(log, StoreWork.note(note)));
            }));
        // jsonb takes no NUL; a door refuses such a label long before.
        Sandbox sandbox =
            StoreWork.sandbox(ids.sandbox(), ids.tenant(), Map.of("k", "nul \0 here"));
        bad.add(
            threads.submit(() -> {
              start.await();
              return store.commit(StoreWork.creation(sandbox));
            }));
      }
      start.countDown();
      for (Future<CommitResult> future : good) {
        StoreWork.committed(future.get(60, TimeUnit.SECONDS));
      }
      for (Future<CommitResult> future : bad) {
        assertThatThrownBy(() -> future.get(60, TimeUnit.SECONDS))
            .hasCauseInstanceOf(IllegalStateException.class);
      }
      assertThat(store.lastSeq(log)).isEqualTo(50);
    }
  }

  @Test
  void twoReplicasShareQuotaKeysAndOffsets() throws Exception {
    try (PostgresStore one = open();
        PostgresStore two = open();
        var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<PostgresStore> replicas = List.of(one, two);
      Id tenant = ids.tenant();
      IdempotencyKey key = new IdempotencyKey(tenant, "POST /v1/sandboxes", "k");
      Id log = StoreWork.created(one, ids);
      Call call = StoreWork.call(ids, log);
      StoreWork.committed(one.commit(Commit.of(log, new Change.CreateCall(call, 1))));
      CountDownLatch start = new CountDownLatch(1);
      List<Future<CommitResult>> creations = new ArrayList<>();
      List<Future<CommitResult>> claims = new ArrayList<>();
      List<Future<CommitResult>> appends = new ArrayList<>();
      for (int i = 0; i < 20; i++) {
        PostgresStore store = replicas.get(i % 2);
        Commit creation = StoreWork.creation(StoreWork.sandbox(ids.sandbox(), tenant, Map.of()), 7);
        Commit claim =
            Commit.of(
                ids.sandbox(), new Change.ClaimKey(key, "h", Optional.empty(), StoreWork.NOW));
        Commit append =
            Commit.of(
                log,
                StoreWork.note("n" + i),
                new Change.AppendOutput(call.id(), Channel.STDOUT, 0, new byte[1]));
        creations.add(threads.submit(() -> started(start, store, creation)));
        claims.add(threads.submit(() -> started(start, store, claim)));
        appends.add(threads.submit(() -> started(start, store, append)));
      }
      start.countDown();
      assertThat(committed(creations)).isEqualTo(7);
      assertThat(committed(claims)).isEqualTo(1);
      assertThat(committed(appends)).isEqualTo(1);
      assertThat(two.lastSeq(log)).isEqualTo(1);
    }
  }

  private static CommitResult started(CountDownLatch start, Store store, Commit commit)
      throws InterruptedException {
    start.await();
    return store.commit(commit);
  }

  private static int committed(List<Future<CommitResult>> results) throws Exception {
    int committed = 0;
    for (Future<CommitResult> result : results) {
      if (result.get(60, TimeUnit.SECONDS) instanceof CommitResult.Committed) {
        committed++;
      }
    }
    return committed;
  }

  @Test
  void wakesReadersOfAnotherReplicaAndAllWhenItMayHaveMissedOne() throws Exception {
    try (PostgresStore one = open();
        PostgresStore two = open()) {
      Id log = StoreWork.created(one, ids);
      CountDownLatch woken = new CountDownLatch(1);
      try (Store.Subscription _ = two.subscribe(log, woken::countDown)) {
        // The other's LISTEN may come after the first NOTIFY.
        for (int i = 0; i < 200 && woken.getCount() > 0; i++) {
          StoreWork.committed(one.commit(Commit.of(log, StoreWork.note("n" + i))));
          woken.await(100, TimeUnit.MILLISECONDS);
        }
        assertThat(woken.getCount()).isZero();
      }
      CountDownLatch again = new CountDownLatch(1);
      try (Store.Subscription _ = two.subscribe(log, again::countDown)) {
        sql(
            "select pg_terminate_backend(pid) from pg_stat_activity"
                + " where query ilike 'listen%' or query = 'select 1'");
        assertThat(again.await(30, TimeUnit.SECONDS)).isTrue();
      }
    }
  }

  @Test
  void makesWeeksAheadAndDropsThemWhenTheyAreOld() throws Exception {
    Instant then = Instant.parse("2024-03-05T06:07:08Z");
    Clock past = Clock.fixed(then, ZoneOffset.UTC);
    Ids old = new Ids(past, new SecureRandom());
    String partition = "event_from_20240229";
    try (PostgresStore store = PostgresStore.open(database().url(), new SecureRandom(), past)) {
      Id log = old.sandbox();
      StoreWork.committed(store.commit(Commit.of(log, StoreWork.note("old"))));
      assertThat(ask("select tableoid::regclass from event where sandbox = '" + log + "'"))
          .containsExactly(partition);
      store.retain(then.minus(Duration.ofDays(30)), then.minus(Duration.ofDays(30)));
      assertThat(StoreWork.log(store, log)).hasSize(1);
      store.retain(then.plus(Duration.ofDays(10)), then.plus(Duration.ofDays(10)));
      assertThat(StoreWork.log(store, log)).isEmpty();
      assertThat(ask("select relname from pg_class where relname = '" + partition + "'")).isEmpty();
      assertThat(store.lastSeq(log)).isEqualTo(1);
    }
  }

  @Test
  void waitsForTheOutcomeEvenWhenInterrupted() throws Exception {
    try (PostgresStore store = open()) {
      Id log = StoreWork.created(store, ids);
      Thread.currentThread().interrupt();
      StoreWork.committed(store.commit(Commit.of(log, StoreWork.note("n"))));
      assertThat(Thread.interrupted()).isTrue();
    }
  }

  @Test
  void aFullDiskRefusesAndNothingIsLost() throws Exception {
    Assumptions.assumeTrue(
        Files.getAttribute(Path.of("/proc/self"), "unix:uid").equals(0), "mounting needs root");
    Path mount = Files.createTempDirectory("foredeck-full");
    run("mount", "-t", "tmpfs", "-o", "size=420m,mode=0711", "tmpfs", mount.toString());
    try (EmbeddedPostgres server = TestDatabase.startIn(mount);
        PostgresStore store =
            open(new DatabaseUrl(server.jdbcUrl(), EmbeddedPostgres.USER, server.password()))) {
      Files.setPosixFilePermissions(mount, PosixFilePermissions.fromString("rwx--x--x"));
      Id log = StoreWork.created(store, ids);
      Call call = StoreWork.call(ids, log);
      StoreWork.committed(store.commit(Commit.of(log, new Change.CreateCall(call, 1))));
      Path ballast = mount.resolve("ballast");
      run(
          "sh",
          "-c",
          "dd if=/dev/zero of=" + ballast + " bs=1M count=100000 2>/dev/null; test -s " + ballast);
      long acknowledged = 0;
      byte[] chunk = new byte[262_144];
      StoreUnavailableException refusal = null;
      for (int i = 0; i < 400 && refusal == null; i++) {
        try {
          StoreWork.committed(
              store.commit(
                  Commit.of(
                      log,
                      StoreWork.note("n" + i),
                      new Change.AppendOutput(call.id(), Channel.STDOUT, acknowledged, chunk))));
          acknowledged += chunk.length;
        } catch (StoreUnavailableException e) {
          refusal = e;
        }
      }
      assertThat(refusal).as("the refusal of a full disk").isNotNull();
      Files.delete(ballast);
      long offset = -1;
      long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
      boolean recovered = false;
      while (!recovered && System.nanoTime() < until) {
        try {
          offset = store.call(call.id()).orElseThrow().stdoutBytes();
          StoreWork.committed(
              store.commit(
                  Commit.of(
                      log, new Change.AppendOutput(call.id(), Channel.STDOUT, offset, chunk))));
          recovered = true;
        } catch (StoreUnavailableException _) {
          LockSupport.parkNanos(100_000_000);
        }
      }
      assertThat(recovered).isTrue();
      assertThat(offset).isGreaterThanOrEqualTo(acknowledged);
      assertThat(store.recordedBytes(call.id(), Channel.STDOUT)).isEqualTo(offset + chunk.length);
      assertThat(StoreWork.log(store, log)).hasSize((int) (offset / chunk.length));
    } finally {
      run("umount", mount.toString());
      Files.delete(mount);
    }
  }

  private static void run(String... argv) throws Exception {
    Process process = new ProcessBuilder(argv).inheritIO().start();
    assertThat(process.waitFor(60, TimeUnit.SECONDS)).isTrue();
    assertThat(process.exitValue()).as(String.join(" ", argv)).isZero();
  }
}
