package dev.foredeck.store;

import dev.foredeck.store.embedded.EmbeddedPostgres;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;

/// A PostgreSQL of a test's own in a folder that goes with it.
final class TestDatabase implements AutoCloseable {
  private final Path folder;
  private final EmbeddedPostgres server;

  private TestDatabase(Path folder, EmbeddedPostgres server) {
    this.folder = folder;
    this.server = server;
  }

  static TestDatabase start() throws IOException {
    Path folder = Files.createTempDirectory("foredeck-store");
    Files.setPosixFilePermissions(folder, PosixFilePermissions.fromString("rwx--x--x"));
    return new TestDatabase(folder, startIn(folder));
  }

  static EmbeddedPostgres startIn(Path folder) throws IOException {
    return EmbeddedPostgres.start(
        folder.resolve("postgres"), new SecureRandom(), Duration.ofSeconds(60));
  }

  EmbeddedPostgres server() {
    return server;
  }

  DatabaseUrl url() {
    return new DatabaseUrl(server.jdbcUrl(), EmbeddedPostgres.USER, server.password());
  }

  @Override
  public void close() {
    server.close();
    removeTree(folder);
  }

  static void removeTree(Path root) {
    List<Path> all;
    try (Stream<Path> paths = Files.walk(root)) {
      all = paths.sorted(Comparator.reverseOrder()).toList();
      for (Path path : all) {
        Files.delete(path);
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
