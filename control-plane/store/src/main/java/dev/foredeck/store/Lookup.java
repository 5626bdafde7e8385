package dev.foredeck.store;

import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.time.OffsetDateTime;
import java.util.Optional;
import java.util.function.Function;
import java.util.function.Supplier;
import javax.sql.DataSource;
import org.jooq.Field;
import org.jooq.JSON;
import org.jooq.JSONB;
import org.jooq.SQLDialect;
import org.jooq.Table;
import org.jooq.TableField;
import org.jooq.exception.DataAccessException;
import org.jooq.impl.DSL;
import org.jooq.impl.TableRecordImpl;
import org.jspecify.annotations.Nullable;

/// One row by one key, for the reads that every request does: jOOQ renders the statement once and
/// not each time, which is most of what such a read costs this process.
final class Lookup<R extends TableRecordImpl<R>, T> {
  private final Field<?>[] fields;
  private final Supplier<R> empty;
  private final Function<R, T> map;
  private final String sql;

  Lookup(Table<R> table, TableField<R, String> key, Supplier<R> empty, Function<R, T> map) {
    this.fields = table.fields();
    this.empty = empty;
    this.map = map;
    this.sql = DSL.using(SQLDialect.POSTGRES).selectFrom(table).where(key.eq(DSL.val(""))).getSQL();
  }

  /// @throws DataAccessException as jOOQ's own reads do
  Optional<T> of(DataSource pool, String key) {
    try (Connection connection = pool.getConnection();
        PreparedStatement statement = connection.prepareStatement(sql)) {
      statement.setString(1, key);
      try (ResultSet row = statement.executeQuery()) {
        if (!row.next()) {
          return Optional.empty();
        }
        R found = empty.get();
        for (int i = 0; i < fields.length; i++) {
          set(found, fields[i], row, i + 1);
        }
        return Optional.of(map.apply(found));
      }
    } catch (SQLException e) {
      throw new DataAccessException("a look-up failed", e);
    }
  }

  private static <V> void set(TableRecordImpl<?> record, Field<V> field, ResultSet row, int column)
      throws SQLException {
    record.set(field, field.getType().cast(value(field.getType(), row, column)));
  }

  private static @Nullable Object value(Class<?> type, ResultSet row, int column)
      throws SQLException {
    if (type == OffsetDateTime.class) {
      return row.getObject(column, OffsetDateTime.class);
    }
    if (type == JSON.class || type == JSONB.class) {
      String text = row.getString(column);
      if (text == null) {
        return null;
      }
      return type == JSON.class ? JSON.valueOf(text) : JSONB.valueOf(text);
    }
    return row.getObject(column);
  }
}
