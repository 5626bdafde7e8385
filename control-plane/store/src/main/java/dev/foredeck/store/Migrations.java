package dev.foredeck.store;

import org.flywaydb.core.Flyway;

/// Brings a database's schema to what this code needs.
final class Migrations {
  private Migrations() {}

  /// Replicas that start at the same time take turns.
  static void run(DatabaseUrl database) {
    Flyway.configure()
        .dataSource(database.jdbcUrl(), database.user(), database.password())
        .locations("classpath:dev/foredeck/store/migration")
        .failOnMissingLocations(true)
        .cleanDisabled(true)
        .load()
        .migrate();
  }
}
