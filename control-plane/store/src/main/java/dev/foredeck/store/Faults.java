package dev.foredeck.store;

import dev.foredeck.core.store.Store.StoreUnavailableException;
import java.sql.SQLException;
import java.sql.SQLTransientConnectionException;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// What a failure of the database means.
enum Faults {
  /// The connection is gone: what it was doing may or may not have happened.
  CONNECTION_LOST,
  /// Rolled back for no fault of the statement: trying again may succeed at once.
  CONTENTION,
  /// Rolled back, and trying again at once will not help: full disk, read-only, too slow.
  INCAPABLE,
  /// Rolled back because of what was asked.
  REFUSED;

  static Faults of(SQLException e) {
    String state = e.getSQLState();
    if (state == null || e instanceof SQLTransientConnectionException) {
      return CONNECTION_LOST;
    }
    return switch (state.length() < 2 ? "" : state.substring(0, 2)) {
      case "08" -> CONNECTION_LOST;
      case "40", "55" -> CONTENTION;
      // Shutting down, crashing or starting (57P0x) cuts connections; a timeout (57014) does not.
      case "57" -> state.startsWith("57P") ? CONNECTION_LOST : INCAPABLE;
      case "53" -> state.equals("53300") ? CONNECTION_LOST : INCAPABLE;
      // 25P03: our transaction waited too long for us, and the server ended the connection.
      case "25" -> state.equals("25P03") ? CONNECTION_LOST : INCAPABLE;
      case "28", "3D", "42501", "54", "58", "XX" -> INCAPABLE;
      case "23" -> state.equals("23505") ? CONTENTION : REFUSED;
      default -> REFUSED;
    };
  }

  /// The first SQL exception among the causes.
  static Optional<SQLException> sql(@Nullable Throwable thrown) {
    for (Throwable at = thrown; at != null; at = at.getCause()) {
      if (at instanceof SQLException sql) {
        return Optional.of(sql);
      }
    }
    return Optional.empty();
  }

  static StoreUnavailableException unavailable(SQLException e) {
    String state = e.getSQLState() == null ? "" : e.getSQLState();
    String message =
        switch (state) {
          case "53100" -> "the database's disk is full: free space and it goes on by itself";
          case "53200" -> "the database is out of memory";
          case "53300" -> "the database has no connection left for us";
          case "57014" -> "the database took too long to answer";
          case "25006" -> "the database is read-only";
          case "28000", "28P01" -> "the database does not let us in: check user and password";
          case "3D000" -> "the database does not exist";
          default -> "the database does not answer";
        };
    return new StoreUnavailableException(message, e);
  }
}
