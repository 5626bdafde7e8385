package dev.foredeck.store;

import java.time.OffsetDateTime;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.jooq.Field;
import org.jooq.JSON;
import org.jooq.JSONB;
import org.jooq.Table;
import org.jooq.TableField;

/// Statements that write any number of rows from one array a column: one text, so one prepared
/// plan, and one round trip whatever the number of rows. Names and types come from the generated
/// tables; rendering happens once, at class loading.
///
/// @param arrays the element types of the parameters, in order, as PostgreSQL names them
record UnnestSql(String text, List<String> arrays) {
  UnnestSql {
    arrays = List.copyOf(arrays);
  }

  static UnnestSql insert(Table<?> table, TableField<?, ?>... columns) {
    return insert(table, "", columns);
  }

  /// @param conflict what follows, as `on conflict ... do update ...`
  static UnnestSql insert(Table<?> table, String conflict, TableField<?, ?>... columns) {
    List<Field<?>> fields = List.of(columns);
    String names = fields.stream().map(UnnestSql::quoted).collect(Collectors.joining(", "));
    String values =
        IntStream.range(0, fields.size())
            .mapToObj(i -> "v.c" + i + cast(fields.get(i)))
            .collect(Collectors.joining(", "));
    String text =
        "insert into %s (%s) select %s from %s %s"
            .formatted(table.getName(), names, values, source(fields), conflict)
            .strip();
    return new UnnestSql(text, elementTypes(fields));
  }

  /// Sets what is not null, of the row whose first column is equal.
  static UnnestSql update(Table<?> table, TableField<?, ?>... columns) {
    List<Field<?>> fields = List.of(columns);
    String sets =
        IntStream.range(1, fields.size())
            .mapToObj(i -> {
              String name = quoted(fields.get(i));
              return "%s = coalesce(v.c%d%s, t.%s)".formatted(name, i, cast(fields.get(i)), name);
            })
            .collect(Collectors.joining(", "));
    String text =
        "update %s t set %s from %s where t.%s = v.c0"
            .formatted(table.getName(), sets, source(fields), quoted(fields.getFirst()));
    return new UnnestSql(text, elementTypes(fields));
  }

  private static String source(List<Field<?>> fields) {
    String arrays =
        elementTypes(fields).stream()
            .map(type -> "?::" + type + "[]")
            .collect(Collectors.joining(", "));
    String names =
        IntStream.range(0, fields.size()).mapToObj(i -> "c" + i).collect(Collectors.joining(", "));
    return "unnest(" + arrays + ") as v(" + names + ")";
  }

  private static String quoted(Field<?> field) {
    return "\"" + field.getName() + "\"";
  }

  private static List<String> elementTypes(List<Field<?>> fields) {
    return fields.stream().map(UnnestSql::elementType).toList();
  }

  private static String elementType(Field<?> field) {
    Class<?> type = field.getType();
    if (type == Long.class) {
      return "int8";
    }
    if (type == Integer.class) {
      return "int4";
    }
    if (type == Boolean.class) {
      return "bool";
    }
    return type == byte[].class ? "bytea" : "text";
  }

  /// Times and JSON travel as text.
  private static String cast(Field<?> field) {
    Class<?> type = field.getType();
    if (type == JSON.class) {
      return "::json";
    }
    if (type == JSONB.class) {
      return "::jsonb";
    }
    return type == OffsetDateTime.class ? "::timestamptz" : "";
  }
}
