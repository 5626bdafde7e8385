package dev.foredeck.store;

import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.List;
import org.jooq.DSLContext;
import org.jooq.exception.DataAccessException;
import org.jooq.impl.DSL;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Weeks of the tables that grow: made ahead, dropped when old. What falls outside of them is in a
/// default partition, where it works as well and is deleted instead of dropped.
final class Partitions {
  private static final Logger LOG = LoggerFactory.getLogger(Partitions.class);

  private static final Duration WIDTH = Duration.ofDays(7);
  private static final int AHEAD = 4;
  private static final int DELETE_AT_ONCE = 5_000;

  /// As in `Ids`.
  private static final String ALPHABET = "0123456789abcdefghijklmnopqrstuv";

  private static final DateTimeFormatter DATE = DateTimeFormatter.BASIC_ISO_DATE;

  private final DSLContext db;

  /// A table by weeks.
  ///
  /// @param key the column with the id
  /// @param prefix of the ids
  /// @param live whether the row of an id still lives, with `%s` for the id
  private record Weekly(String table, String key, String prefix, String liveTable, String live) {}

  private static final String LIVE_CALL = "status in ('pending', 'running')";
  private static final String LIVE_SANDBOX = "phase not in ('gone', 'failed')";

  private static final Weekly EVENTS =
      new Weekly("event", "sandbox", "sbx", "sandbox", LIVE_SANDBOX);
  private static final Weekly CHUNKS =
      new Weekly("output_chunk", "call", "call", "call", LIVE_CALL);
  private static final Weekly ARTIFACTS =
      new Weekly("call_artifact", "call", "call", "call", LIVE_CALL);
  private static final List<Weekly> ALL = List.of(EVENTS, CHUNKS, ARTIFACTS);

  Partitions(DSLContext db) {
    this.db = db;
  }

  /// Makes this week's partitions and the next ones'.
  void makeAhead(Instant now) {
    for (Weekly weekly : ALL) {
      for (int week = -1; week <= AHEAD; week++) {
        Instant from = weekOf(now).plus(WIDTH.multipliedBy(week));
        if (!exists(name(weekly, from))) {
          make(weekly, from);
        }
      }
    }
  }

  private boolean exists(String name) {
    return db.fetchExists(
        DSL.select(DSL.one())
            .from("pg_class")
            .where("relname = ? and relnamespace = current_schema()::regnamespace", name));
  }

  private void make(Weekly weekly, Instant from) {
    String name = name(weekly, from);
    try {
      db.transaction(transaction -> {
        DSLContext own = transaction.dsl();
        // Behind a long reader, everybody would wait behind us.
        own.execute("set local lock_timeout = '2s'");
        own.execute("select pg_advisory_xact_lock(hashtext('foredeck partitions'))");
        own.execute(
            "create table if not exists %s partition of %s for values from ('%s') to ('%s')"
                .formatted(
                    name,
                    weekly.table(),
                    bound(weekly.prefix(), from),
                    bound(weekly.prefix(), from.plus(WIDTH))));
      });
      LOG.debug("made partition {}", name);
    } catch (DataAccessException e) {
      // The default partition takes the rows, or has some already; the next round tries again.
      LOG.warn("cannot make partition {}", name, e);
    }
  }

  /// Drops or deletes what is older, sparing what belongs to something that lives.
  void retain(Instant outputBefore, Instant eventsBefore) {
    drop(CHUNKS, outputBefore);
    drop(ARTIFACTS, outputBefore);
    drop(EVENTS, eventsBefore);
    delete(
        "call",
        "id like 'call%' and id < '"
            + bound("call", eventsBefore)
            + "' and not ("
            + LIVE_CALL
            + ")");
  }

  private void drop(Weekly weekly, Instant before) {
    for (Instant from : existing(weekly)) {
      Instant to = from.plus(WIDTH);
      if (to.isAfter(before) || anyLive(weekly, from, to)) {
        continue;
      }
      String name = name(weekly, from);
      try {
        db.transaction(transaction -> {
          transaction.dsl().execute("set local lock_timeout = '2s'");
          transaction.dsl().execute("drop table if exists " + name);
        });
        LOG.info("dropped partition {}", name);
      } catch (DataAccessException e) {
        if (Faults.sql(e).map(Faults::of).filter(f -> f == Faults.CONTENTION).isEmpty()) {
          throw e;
        }
        LOG.warn("partition {} is in use; the next round drops it", name);
      }
    }
    delete(
        weekly.table() + "_default",
        "%1$s like '%2$s%%' and %1$s < '%3$s' and not exists (select 1 from %4$s l where l.id = %1$s and %5$s)"
            .formatted(
                weekly.key(),
                weekly.prefix(),
                bound(weekly.prefix(), before),
                weekly.liveTable(),
                weekly.live()));
  }

  private void delete(String table, String where) {
    String rows =
        "delete from %1$s where ctid = any(array(select ctid from %1$s where %2$s limit %3$d))"
            .formatted(table, where, DELETE_AT_ONCE);
    while (db.execute(rows) > 0) {
      // In pieces, so that no piece holds locks for long.
    }
  }

  private boolean anyLive(Weekly weekly, Instant from, Instant to) {
    return db.fetchExists(
        DSL.select(DSL.one())
            .from(weekly.liveTable())
            .where(
                "id >= ? and id < ? and " + weekly.live(),
                bound(weekly.prefix(), from),
                bound(weekly.prefix(), to)));
  }

  private List<Instant> existing(Weekly weekly) {
    List<Instant> weeks = new ArrayList<>();
    String prefix = weekly.table() + "_from_";
    for (String name :
        db.fetch(
                "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid"
                    + " where i.inhparent = ?::regclass order by 1",
                weekly.table())
            .getValues(0, String.class)) {
      if (name.startsWith(prefix)) {
        weeks.add(
            LocalDate.parse(name.substring(prefix.length()), DATE)
                .atStartOfDay(ZoneOffset.UTC)
                .toInstant());
      }
    }
    return weeks;
  }

  private static String name(Weekly weekly, Instant from) {
    return weekly.table() + "_from_" + DATE.format(from.atOffset(ZoneOffset.UTC).toLocalDate());
  }

  private static Instant weekOf(Instant now) {
    long width = WIDTH.toMillis();
    return Instant.ofEpochMilli(Math.floorDiv(now.toEpochMilli(), width) * width);
  }

  /// The smallest id of a kind that can be made at a time.
  static String bound(String prefix, Instant time) {
    long millis = Math.max(0, time.toEpochMilli());
    StringBuilder bound = new StringBuilder(prefix);
    for (int shift = 45; shift >= 0; shift -= 5) {
      bound.append(ALPHABET.charAt((int) (millis >>> shift) & 31));
    }
    return bound.toString();
  }
}
