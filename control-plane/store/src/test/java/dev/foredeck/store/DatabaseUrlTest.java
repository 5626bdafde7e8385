package dev.foredeck.store;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class DatabaseUrlTest {
  @ParameterizedTest
  @ValueSource(
      strings = {
        "postgres://app:s%40c%2Fr+t@db.example:5433/foredeck?sslmode=require",
        "postgresql://app:s%40c%2Fr+t@db.example:5433/foredeck?sslmode=require",
        "jdbc:postgresql://app:s%40c%2Fr+t@db.example:5433/foredeck?sslmode=require",
        "jdbc:postgresql://db.example:5433/foredeck?user=app&password=s%40c%2Fr+t&sslmode=require"
      })
  void takesEveryForm(String text) {
    assertThat(DatabaseUrl.parse(text))
        .isEqualTo(
            new DatabaseUrl(
                "jdbc:postgresql://db.example:5433/foredeck?sslmode=require", "app", "s@c/r+t"));
  }

  @Test
  void takesWhatMayBeLeftOut() {
    assertThat(DatabaseUrl.parse("postgres://localhost/f"))
        .isEqualTo(new DatabaseUrl("jdbc:postgresql://localhost/f", "", ""));
    assertThat(DatabaseUrl.parse("postgres://u@[::1]:5432/f").jdbcUrl())
        .isEqualTo("jdbc:postgresql://[::1]:5432/f");
    assertThat(DatabaseUrl.parse("postgres://u:p@a:1,b:2/f?targetServerType=primary").jdbcUrl())
        .isEqualTo("jdbc:postgresql://a:1,b:2/f?targetServerType=primary");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "mysql://u:hush@h/d",
        "postgres:hush",
        "postgres://u:hush@h/d/e",
        "postgres://",
        "postgres://u:hu%zzsh@h/d",
        "postgres://u:hush@h ost/d"
      })
  void refusesOthersWithoutShowingAPassword(String text) {
    assertThatThrownBy(() -> DatabaseUrl.parse(text))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("postgres://user:password@host")
        .hasMessageNotContaining("hush")
        .hasNoCause();
  }

  @Test
  void showsNoPassword() {
    assertThat(DatabaseUrl.parse("postgres://u:hush@h/d").toString()).doesNotContain("hush");
  }
}
