package dev.foredeck.store;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;

/// Opens the connections that are not the pool's, and refuses a server that could lose what it has
/// acknowledged.
record Connections(DatabaseUrl database) {
  private static final int MIN_VERSION = 15;

  /// Bounds on the server's side: a statement, a lock that is waited for, a transaction whose
  /// client says nothing.
  static final String LIMITS =
      "set statement_timeout = '30s'; set lock_timeout = '10s';"
          + " set idle_in_transaction_session_timeout = '10s'";

  /// A committer's statements are few and always go by an index: one plan for ever, which does not
  /// depend on what statistics say of a table that was empty a second ago.
  private static final String ONE_PLAN =
      "set plan_cache_mode = force_generic_plan; set enable_seqscan = off;"
          + " set enable_hashjoin = off; set enable_mergejoin = off; set jit = off";

  /// And on ours: a server that is unreachable does not hold a thread for ever.
  static final String DRIVER_LIMITS =
      "connectTimeout=5&socketTimeout=60&tcpKeepAlive=true&ApplicationName=foredeck";

  Connection open() throws SQLException {
    DatabaseUrl limited = database.with(DRIVER_LIMITS);
    Connection connection =
        DriverManager.getConnection(limited.jdbcUrl(), limited.user(), limited.password());
    try (Statement statement = connection.createStatement()) {
      statement.execute(LIMITS);
      return connection;
    } catch (SQLException e) {
      connection.close();
      throw e;
    }
  }

  /// A connection to commit with.
  ///
  /// @throws UnsafeServerException where the server's settings break the promise of durability
  Connection openDurable() throws SQLException {
    Connection connection = open();
    try {
      check(connection);
      try (Statement statement = connection.createStatement()) {
        statement.execute(ONE_PLAN);
      }
      connection.setAutoCommit(false);
      return connection;
    } catch (SQLException | RuntimeException e) {
      connection.close();
      throw e;
    }
  }

  private static void check(Connection connection) throws SQLException {
    List<String> wrong = new ArrayList<>();
    int version = connection.getMetaData().getDatabaseMajorVersion();
    if (version < MIN_VERSION) {
      wrong.add("it is version " + version + ", and " + MIN_VERSION + " is the oldest that works");
    }
    try (Statement statement = connection.createStatement();
        ResultSet rows =
            statement.executeQuery(
                "select name from pg_settings where setting = 'off' and name in"
                    + " ('fsync', 'synchronous_commit', 'full_page_writes') order by name")) {
      while (rows.next()) {
        wrong.add("its setting " + rows.getString(1) + " is off, so a crash can lose commits");
      }
    }
    if (!wrong.isEmpty()) {
      throw new UnsafeServerException("this PostgreSQL is refused: " + String.join("; ", wrong));
    }
  }

  /// A server that Foredeck does not write to.
  static final class UnsafeServerException extends IllegalStateException {
    private static final long serialVersionUID = 1L;

    UnsafeServerException(String message) {
      super(message);
    }
  }
}
