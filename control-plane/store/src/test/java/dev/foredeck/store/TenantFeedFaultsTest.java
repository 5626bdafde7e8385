package dev.foredeck.store;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.Store;
import dev.foredeck.core.store.Store.StoreUnavailableException;
import dev.foredeck.core.store.TenantCursor;
import dev.foredeck.core.store.TenantEvent;
import dev.foredeck.core.store.TenantPage;
import java.security.SecureRandom;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Clock;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/// A tenant's feed where transactions overlap, servers die and databases are restored.
final class TenantFeedFaultsTest {
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
    return PostgresStore.open(
        database().url(), new SecureRandom(), Clock.fixed(StoreWork.NOW, ZoneOffset.UTC));
  }

  private static Connection connect() throws SQLException {
    DatabaseUrl url = database().url();
    return DriverManager.getConnection(url.jdbcUrl(), url.user(), url.password());
  }

  private static void sql(String... statements) throws SQLException {
    try (Connection connection = connect();
        Statement statement = connection.createStatement()) {
      for (String text : statements) {
        statement.execute(text);
      }
    }
  }

  private Id created(Store store, Id tenant) {
    Id sandbox = ids.sandbox();
    StoreWork.committed(
        store.commit(StoreWork.creation(StoreWork.sandbox(sandbox, tenant, Map.of()))));
    return sandbox;
  }

  private static void note(Store store, Id sandbox, String note) {
    StoreWork.committed(store.commit(Commit.of(sandbox, StoreWork.note(note))));
  }

  private static List<TenantEvent> read(Store store, Id tenant, Optional<TenantCursor> after) {
    TenantPage page = store.tenantEvents(tenant, after, 9, 1 << 20);
    assertThat(page).isInstanceOf(TenantPage.Events.class);
    return ((TenantPage.Events) page).events();
  }

  private static List<String> notes(List<TenantEvent> events) {
    return events.stream().map(e -> e.event().data().path("note").asText()).toList();
  }

  private static Optional<TenantCursor> last(List<TenantEvent> events) {
    return events.isEmpty() ? Optional.empty() : Optional.of(events.getLast().cursor());
  }

  /// Two committers, of one replica or of two: the one that began first ends last. A reader that
  /// saw the other's event at once would never see this one's.
  @Test
  void anEventWaitsForATransactionThatBeganBeforeItsOwn() throws Exception {
    Id tenant = ids.tenant();
    try (PostgresStore store = open();
        Connection slow = connect();
        Statement statement = slow.createStatement()) {
      Id first = created(store, tenant);
      Id second = created(store, tenant);
      note(store, first, "a");
      List<TenantEvent> seen = new ArrayList<>(read(store, tenant, Optional.empty()));
      assertThat(notes(seen)).containsExactly("a");

      slow.setAutoCommit(false);
      statement.execute(
          "insert into event (sandbox, seq, time, type, data, tenant, tx)"
              + " select '%s', 1, now(), 'note', '{\"note\":\"slow\"}', '%s',"
                  .formatted(second, tenant)
              + " base + pg_current_xact_id()::text::int8 from event_order");
      note(store, first, "b");
      note(store, first, "c");
      assertThat(store.events(first, 1, 9, 1 << 20)).hasSize(2);
      assertThat(read(store, tenant, last(seen))).as("before the slow one has ended").isEmpty();
      assertThat(store.lastOfTenant(tenant)).isEqualTo(last(seen));

      slow.commit();
      seen.addAll(read(store, tenant, last(seen)));
      assertThat(notes(seen)).containsExactly("a", "slow", "b", "c");

      // One that is rolled back holds up as long, and leaves nothing.
      statement.execute("select pg_current_xact_id()");
      note(store, first, "d");
      assertThat(read(store, tenant, last(seen))).isEmpty();
      slow.rollback();
      assertThat(notes(read(store, tenant, last(seen)))).containsExactly("d");
    }
  }

  @Test
  void aReaderMissesNothingAndSeesNothingTwiceWhileReplicasWriteAndTheServerIsKilled()
      throws Exception {
    Id tenant = ids.tenant();
    AtomicBoolean stop = new AtomicBoolean();
    List<TenantEvent> seen = new ArrayList<>();
    List<Id> logs = new ArrayList<>();
    try (PostgresStore one = open();
        PostgresStore two = open();
        var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<PostgresStore> replicas = List.of(one, two);
      for (int i = 0; i < 12; i++) {
        logs.add(created(one, tenant));
      }
      List<Future<?>> writers = new ArrayList<>();
      for (int i = 0; i < logs.size(); i++) {
        Id log = logs.get(i);
        Store store = replicas.get(i % 2);
        writers.add(threads.submit(() -> write(store, log, stop)));
      }
      AtomicBoolean written = new AtomicBoolean();
      Future<?> reader =
          threads.submit(() -> {
            // What was there after the last write: read on until nothing is new.
            boolean end = false;
            while (!end) {
              end = written.get();
              for (List<TenantEvent> next = readPatiently(two, tenant, last(seen));
                  !next.isEmpty();
                  next = readPatiently(two, tenant, last(seen))) {
                seen.addAll(next);
              }
            }
          });
      for (int kill = 0; kill < 2; kill++) {
        LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(700));
        long pid = database().server().pid();
        ProcessHandle.of(pid).ifPresent(ProcessHandle::destroyForcibly);
        await(() -> database().server().pid() != pid);
      }
      LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(500));
      stop.set(true);
      for (Future<?> writer : writers) {
        writer.get(120, TimeUnit.SECONDS);
      }
      written.set(true);
      reader.get(120, TimeUnit.SECONDS);
      int all = 0;
      for (Id log : logs) {
        List<dev.foredeck.core.store.Event> whole = StoreWork.log(one, log);
        all += whole.size();
        assertThat(seen.stream().map(TenantEvent::event).filter(e -> e.sandbox().equals(log)))
            .isEqualTo(whole);
      }
      assertThat(seen).hasSize(all).hasSizeGreaterThan(logs.size());
    }
  }

  private static void write(Store store, Id log, AtomicBoolean stop) {
    for (int i = 0; !stop.get(); i++) {
      try {
        note(store, log, Integer.toString(i));
      } catch (StoreUnavailableException _) {
        // It may be there or not: the logs are what the reader is held to.
        LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(20));
      }
    }
  }

  private static List<TenantEvent> readPatiently(
      Store store, Id tenant, Optional<TenantCursor> after) {
    while (true) {
      try {
        return read(store, tenant, after);
      } catch (StoreUnavailableException _) {
        LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(20));
      }
    }
  }

  private static void await(java.util.function.BooleanSupplier condition) {
    long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
    while (!condition.getAsBoolean()) {
      assertThat(System.nanoTime()).as("waited for 60 s").isLessThan(until);
      LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(20));
    }
  }

  /// A dump that is restored elsewhere: transaction ids begin anew, below those of the events.
  @Test
  void goesOnAfterWhatIsThereWhenTheDatabaseWasRestoredIntoAnotherCluster() throws Exception {
    Id tenant = ids.tenant();
    Id sandbox;
    try (PostgresStore store = open()) {
      sandbox = created(store, tenant);
      note(store, sandbox, "a");
      note(store, sandbox, "b");
    }
    sql(
        "update event set tx = tx + 1000000000 where tenant = '%s'".formatted(tenant),
        "update event_order set cluster = 1");
    try (PostgresStore store = open();
        PostgresStore other = open()) {
      List<TenantEvent> seen = new ArrayList<>(read(store, tenant, Optional.empty()));
      assertThat(notes(seen)).containsExactly("a", "b");
      note(store, sandbox, "c");
      note(other, created(other, tenant), "d");
      seen.addAll(read(other, tenant, last(seen)));
      assertThat(notes(seen)).containsExactly("a", "b", "c", "d");
    }
    try (PostgresStore again = open()) {
      note(again, sandbox, "e");
      assertThat(notes(read(again, tenant, Optional.empty())))
          .containsExactly("a", "b", "c", "d", "e");
    }
  }

  /// A backup of the cluster's files: what came after it is undone, and its places are taken again.
  @Test
  void refusesACursorOfATimeThatWasUndone() throws Exception {
    Id tenant = ids.tenant();
    try (PostgresStore store = open()) {
      Id sandbox = created(store, tenant);
      note(store, sandbox, "a");
      note(store, sandbox, "undone");
      Optional<TenantCursor> cursor = store.lastOfTenant(tenant);
      sql(
          "delete from event where sandbox = '%s' and seq = 2".formatted(sandbox),
          "update log set last_seq = 1 where sandbox = '%s'".formatted(sandbox));
      note(store, sandbox, "other");
      assertThat(store.tenantEvents(tenant, cursor, 9, 1 << 20))
          .isInstanceOf(TenantPage.CursorLost.class);
      assertThat(notes(read(store, tenant, Optional.empty()))).containsExactly("a", "other");
    }
  }
}
