package dev.foredeck.agent;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/// Rules that the compiler does not know.
class HouseRulesTest {
  private static List<Path> filesWith(String... words) throws IOException {
    try (Stream<Path> files = Files.walk(Path.of("src/main/java"))) {
      return files
          .filter(Files::isRegularFile)
          .filter(file -> {
            try {
              String text = Files.readString(file);
              return Stream.of(words).anyMatch(text::contains);
            } catch (IOException e) {
              throw new java.io.UncheckedIOException(e);
            }
          })
          .map(Path::getFileName)
          .toList();
    }
  }

  /// The JDK's own process starter leaves orphans as zombies and knows no sessions.
  @Test
  void startsNoProcessThroughTheJdk() throws IOException {
    assertThat(filesWith("ProcessBuilder", "Runtime.getRuntime().exec")).isEmpty();
  }

  @Test
  void makesNativeCallsInOneClass() throws IOException {
    assertThat(filesWith("foreign.Linker", "downcallHandle", "System.load"))
        .containsExactly(Path.of("Kernel.java"));
  }
}
