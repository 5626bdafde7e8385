package dev.foredeck.store;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class JooqGenerationTest {
  /// `./foredeck schema` writes instead of comparing.
  private static final boolean WRITE = Boolean.getBoolean("foredeck.schema.write");

  private static final Path COMMITTED = Path.of("src/generated/jooq");

  @Test
  void whatIsCommittedIsWhatTheMigrationsGive(@TempDir Path fresh) throws Exception {
    JooqGeneration.main(new String[] {(WRITE ? COMMITTED : fresh).toString()});
    if (WRITE) {
      return;
    }
    assertThat(sources(COMMITTED))
        .as("run ./foredeck schema and commit what it makes")
        .isEqualTo(sources(fresh))
        .isNotEmpty();
  }

  private static Map<String, String> sources(Path root) throws IOException {
    Map<String, String> found = new TreeMap<>();
    try (Stream<Path> paths = Files.walk(root)) {
      for (Path path : (Iterable<Path>) paths.filter(Files::isRegularFile)::iterator) {
        found.put(root.relativize(path).toString(), Files.readString(path));
      }
    }
    return found;
  }
}
