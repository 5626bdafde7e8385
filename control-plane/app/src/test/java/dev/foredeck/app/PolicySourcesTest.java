package dev.foredeck.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.app.Configuration.ConfigurationException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class PolicySourcesTest {
  @TempDir Path folder;

  @Test
  void namesEveryFileThatCannotBeRead() throws Exception {
    Files.writeString(folder.resolve("good.yaml"), "x");
    Files.write(folder.resolve("bytes.yaml"), new byte[] {(byte) 0xff, 1});
    Files.createDirectory(folder.resolve("folder.yaml"));
    assertThatThrownBy(() -> PolicySources.read(folder))
        .isInstanceOf(ConfigurationException.class)
        .hasMessageContaining("bytes.yaml is not valid UTF-8")
        .hasMessageContaining("folder.yaml cannot be read")
        .hasMessageNotContaining("good.yaml");
  }

  @Test
  void theOperatorsFilesWinByName() throws Exception {
    Files.writeString(folder.resolve("default.yaml"), "mine");
    Files.writeString(folder.resolve("default.test.yaml"), "a table");
    assertThat(PolicySources.read(folder))
        .containsEntry("default", "mine")
        .containsKeys("offline", "open")
        .doesNotContainKey("default.test");
  }
}
