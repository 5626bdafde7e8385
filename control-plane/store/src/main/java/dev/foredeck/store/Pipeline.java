package dev.foredeck.store;

import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.StringJoiner;
import org.jspecify.annotations.Nullable;

/// Several statements that go to the server in one round trip: the driver sends them all before it
/// waits. They stop at the first that fails.
final class Pipeline {
  private final StringJoiner text = new StringJoiner("; ");
  private final List<Object> parameters = new ArrayList<>();

  private record ArrayOf(String type, @Nullable Object[] elements) {}

  Pipeline add(String statement, Object... values) {
    text.add(statement);
    parameters.addAll(List.of(values));
    return this;
  }

  /// @param rows each as long as the statement has columns
  Pipeline add(UnnestSql statement, List<@Nullable Object[]> rows) {
    if (rows.isEmpty()) {
      return this;
    }
    text.add(statement.text());
    for (int column = 0; column < statement.arrays().size(); column++) {
      String type = statement.arrays().get(column);
      @Nullable Object[] elements =
          switch (type) {
            case "int8" -> new @Nullable Long[rows.size()];
            case "int4" -> new @Nullable Integer[rows.size()];
            case "bool" -> new @Nullable Boolean[rows.size()];
            case "bytea" -> new byte @Nullable [rows.size()][];
            default -> new @Nullable String[rows.size()];
          };
      for (int row = 0; row < elements.length; row++) {
        Object value = rows.get(row)[column];
        elements[row] = value instanceof String string ? withoutNul(string) : value;
      }
      parameters.add(new ArrayOf(type, elements));
    }
    return this;
  }

  static Object texts(Iterable<String> values) {
    List<String> all = new ArrayList<>();
    values.forEach(value -> all.add(withoutNul(value)));
    return new ArrayOf("text", all.toArray(new String[0]));
  }

  static Object longs(List<Long> values) {
    return new ArrayOf("int8", values.toArray(new Long[0]));
  }

  /// PostgreSQL's text has no NUL.
  private static String withoutNul(String text) {
    return text.indexOf('\0') < 0 ? text : text.replace('\0', '\ufffd');
  }

  /// Sends all and hands over the rows of each statement that has rows, in order.
  void run(Connection connection, Results... results) throws SQLException {
    try (PreparedStatement statement = connection.prepareStatement(text.toString())) {
      int index = 1;
      for (Object parameter : parameters) {
        if (parameter instanceof ArrayOf array) {
          statement.setArray(index++, connection.createArrayOf(array.type(), array.elements()));
        } else {
          statement.setObject(index++, parameter);
        }
      }
      boolean rows = statement.execute();
      int next = 0;
      while (rows || statement.getUpdateCount() >= 0) {
        if (rows) {
          try (ResultSet set = statement.getResultSet()) {
            if (next < results.length) {
              results[next++].read(set);
            }
          }
        }
        rows = statement.getMoreResults();
      }
    }
  }

  /// Reads the rows of one statement.
  interface Results {
    void read(ResultSet rows) throws SQLException;
  }
}
