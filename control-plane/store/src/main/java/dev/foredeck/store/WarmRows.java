package dev.foredeck.store;

import static dev.foredeck.store.generated.Tables.WARM_SANDBOX;

import dev.foredeck.core.Id;
import dev.foredeck.core.pool.WarmSandbox;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Change.Refusal;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/// The part of a [Batch] that is about warm sandboxes. Their rows are locked themselves, because
/// there is no log of a sandbox that nobody has: of two that claim one, the second finds it gone.
final class WarmRows {
  private static final UnnestSql INSERT =
      UnnestSql.insert(
          WARM_SANDBOX,
          WARM_SANDBOX.ID,
          WARM_SANDBOX.OWNER,
          WARM_SANDBOX.TEMPLATE,
          WARM_SANDBOX.CPU_MILLIS,
          WARM_SANDBOX.MEMORY_BYTES,
          WARM_SANDBOX.DISK_BYTES,
          WARM_SANDBOX.PIDS,
          WARM_SANDBOX.POLICY,
          WARM_SANDBOX.STATE,
          WARM_SANDBOX.BOOT_ID,
          WARM_SANDBOX.CREATED_AT,
          WARM_SANDBOX.SINCE,
          WARM_SANDBOX.EXPIRES_AT);
  private static final UnnestSql UPDATE =
      UnnestSql.update(
          WARM_SANDBOX,
          WARM_SANDBOX.ID,
          WARM_SANDBOX.STATE,
          WARM_SANDBOX.BOOT_ID,
          WARM_SANDBOX.SINCE);

  /// A row as this batch has changed it.
  ///
  /// @param made what is to be inserted; null where the row is there
  /// @param since null where nothing of it changed
  private record Row(
      WarmSandbox.State state,
      @Nullable String bootId,
      @Nullable Instant since,
      @Nullable WarmSandbox made) {}

  private final Deque<Runnable> undo;
  private final Set<Id> wanted = new TreeSet<>();
  private final Map<Id, Row> rows = new TreeMap<>();
  private final Set<Id> taken = new TreeSet<>();

  /// @param undo of the commit that is being decided
  WarmRows(Deque<Runnable> undo) {
    this.undo = undo;
  }

  void want(Id id) {
    wanted.add(id);
  }

  void load(Pipeline pipeline, List<Pipeline.Results> results) {
    if (wanted.isEmpty()) {
      return;
    }
    pipeline.add(
        "select id, state from warm_sandbox where id = any(?) order by id for update",
        Batch.texts(wanted));
    results.add(found -> {
      while (found.next()) {
        rows.put(
            new Id(found.getString(1)),
            new Row(Wire.warmState(found.getString(2)), null, null, null));
      }
    });
  }

  Optional<Refusal> add(Change.AddWarm c) {
    WarmSandbox made = c.warm();
    // One that was taken within this batch is still in the database while we insert.
    if (rows.containsKey(made.id()) || taken.contains(made.id())) {
      return Optional.of(Refusal.EXISTS);
    }
    put(made.id(), new Row(made.state(), made.bootId(), made.since(), made));
    return Optional.empty();
  }

  Optional<Refusal> move(Id id, Change.MoveWarm c) {
    Row row = rows.get(id);
    if (row == null || !c.from().contains(row.state())) {
      return Optional.of(Refusal.TAKEN);
    }
    put(id, new Row(c.to(), c.bootId().orElse(row.bootId()), c.at(), row.made()));
    return Optional.empty();
  }

  Optional<Refusal> take(Id id, Change.TakeWarm c) {
    Row row = rows.get(id);
    if (row == null || row.state() != c.from()) {
      return Optional.of(Refusal.TAKEN);
    }
    rows.remove(id);
    undo.push(() -> rows.put(id, row));
    if (taken.add(id)) {
      undo.push(() -> taken.remove(id));
    }
    return Optional.empty();
  }

  private void put(Id id, Row row) {
    Row old = rows.put(id, row);
    undo.push(() -> {
      if (old == null) {
        rows.remove(id);
      } else {
        rows.put(id, old);
      }
    });
  }

  boolean changed() {
    return !taken.isEmpty() || rows.values().stream().anyMatch(row -> row.since() != null);
  }

  void write(Pipeline pipeline) {
    if (!taken.isEmpty()) {
      pipeline.add("delete from warm_sandbox where id = any(?)", Batch.texts(taken));
    }
    List<@Nullable Object[]> inserted = new ArrayList<>();
    List<@Nullable Object[]> updated = new ArrayList<>();
    rows.forEach((id, row) -> {
      Instant since = row.since();
      if (since == null) {
        return;
      }
      WarmSandbox made = row.made();
      if (made == null) {
        updated.add(
            new @Nullable Object[] {
              id.value(), row.state().wireName(), row.bootId(), Batch.time(since)
            });
      } else {
        inserted.add(
            new @Nullable Object[] {
              id.value(),
              made.owner(),
              made.template(),
              made.resources().cpuMillis(),
              made.resources().memoryBytes(),
              made.resources().diskBytes(),
              made.resources().pids(),
              made.policy(),
              row.state().wireName(),
              row.bootId(),
              Batch.time(made.createdAt()),
              Batch.time(since),
              Batch.time(made.expiresAt())
            });
      }
    });
    pipeline.add(INSERT, inserted).add(UPDATE, updated);
  }
}
