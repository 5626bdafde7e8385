package dev.foredeck.store;

import dev.foredeck.core.store.Store;
import dev.foredeck.core.store.StoreContract;
import java.security.SecureRandom;
import java.time.Clock;
import java.time.ZoneOffset;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;

/// The store's contract on a real PostgreSQL.
final class PostgresStoreTest extends StoreContract {
  private static @Nullable TestDatabase database;
  private static @Nullable PostgresStore store;

  @BeforeAll
  static void open() throws Exception {
    TestDatabase started = TestDatabase.start();
    database = started;
    store =
        PostgresStore.open(
            started.url(), new SecureRandom(), Clock.fixed(StoreWork.NOW, ZoneOffset.UTC));
  }

  @AfterAll
  static void close() {
    if (store != null) {
      store.close();
    }
    if (database != null) {
      database.close();
    }
  }

  @Override
  protected Store store() {
    PostgresStore open = store;
    if (open == null) {
      throw new IllegalStateException("not open");
    }
    return open;
  }
}
