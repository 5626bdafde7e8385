package dev.foredeck.store;

import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;

/// The order of tenants' feeds, where a database was restored into another cluster: its transaction
/// ids begin anew there, below those of the events that came with it. Whoever is first to write
/// lifts the base above all of them, so that what is written from then on comes after what is
/// there.
///
/// A cluster that went back in time (a restored backup of its files) keeps its ids in step with its
/// events by itself; cursors of the time that was undone are found out when they are used.
final class EventOrder {
  /// As long as nothing is in progress below it everything is visible or will never be: a reader
  /// that stops here skips nobody who commits late.
  static final String HORIZON =
      "(select base from event_order) + pg_snapshot_xmin(pg_current_snapshot())::text::int8";

  private static final String OF_ANOTHER_CLUSTER =
      "select 1 from event_order, pg_control_system() s where cluster <> s.system_identifier";

  /// The last event of each tenant is at the end of its part of the index, and the next tenant is
  /// found there too: nothing else is looked at, however many events there are.
  private static final String LIFT =
      """
      with recursive of (tenant) as (
        select min(tenant) from event
        union all
        select (select min(e.tenant) from event e where e.tenant > of.tenant) from of
        where of.tenant is not null)
      update event_order
      set cluster = s.system_identifier,
        base = greatest(
          base,
          (select max((select max(e.tx) from event e where e.tenant = of.tenant)) from of)
            - pg_current_xact_id()::text::int8 + 1)
      from pg_control_system() s where cluster <> s.system_identifier\
      """;

  private EventOrder() {}

  /// Before anything is written on a connection.
  static void keep(Connection connection) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      boolean moved;
      try (ResultSet rows = statement.executeQuery(OF_ANOTHER_CLUSTER)) {
        moved = rows.next();
      }
      if (moved) {
        // A second one waits for the first, and then finds nothing to do.
        statement.executeUpdate(LIFT);
      }
      connection.commit();
    }
  }
}
