package dev.foredeck.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.app.Configuration.ConfigurationException;
import dev.foredeck.core.DeploymentTls;
import dev.foredeck.core.Ids;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.SecureRandom;
import java.time.Clock;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class DataDirectoryTest {
  private final Ids ids = new Ids(Clock.systemUTC(), new Random(7));

  @TempDir Path folder;

  @Test
  void whatItMakesStaysAndOnlyItsOwnerReadsIt() throws Exception {
    byte[] key;
    String replica;
    String pin;
    try (DataDirectory data = DataDirectory.open(folder)) {
      key = data.deploymentKey(new SecureRandom());
      replica = data.replica(ids);
      pin = data.deploymentTls(new SecureRandom()).pin();
    }
    assertThat(key).hasSize(32);
    try (DataDirectory data = DataDirectory.open(folder)) {
      assertThat(data.deploymentKey(new SecureRandom())).isEqualTo(key);
      assertThat(data.replica(ids)).isEqualTo(replica);
      assertThat(data.deploymentTls(new SecureRandom()).pin()).isEqualTo(pin);
    }
    for (String name : List.of("deployment.key", "deployment.pem", "replica.id")) {
      assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(folder.resolve(name))))
          .isEqualTo("rw-------");
    }
  }

  /// As a host that lost its power may leave it.
  @Test
  void refusesAKeyThatIsNotWhole() throws Exception {
    try (DataDirectory data = DataDirectory.open(folder)) {
      for (String content : List.of("", "\n", "ab12", "x".repeat(64), "00".repeat(33))) {
        Files.writeString(folder.resolve("deployment.key"), content);
        assertThatThrownBy(() -> data.deploymentKey(new SecureRandom()))
            .as(content)
            .isInstanceOf(ConfigurationException.class)
            .hasMessageContaining("deployment.key");
      }
    }
  }

  @Test
  void refusesACertificateThatIsNotWhole() throws Exception {
    try (DataDirectory data = DataDirectory.open(folder)) {
      String whole = DeploymentTls.generate(new SecureRandom()).toPem();
      for (String content : List.of("", whole.substring(0, whole.length() / 2))) {
        Files.writeString(folder.resolve("deployment.pem"), content);
        assertThatThrownBy(() -> data.deploymentTls(new SecureRandom()))
            .isInstanceOf(ConfigurationException.class)
            .hasMessageContaining("deployment.pem");
      }
    }
  }

  @Test
  void refusesAReplicaWithoutAName() throws Exception {
    try (DataDirectory data = DataDirectory.open(folder)) {
      Files.writeString(folder.resolve("replica.id"), "");
      assertThatThrownBy(() -> data.replica(ids))
          .isInstanceOf(ConfigurationException.class)
          .hasMessageContaining("replica.id");
    }
  }

  @Test
  void isHeldByOneAtATime() {
    try (DataDirectory _ = DataDirectory.open(folder)) {
      assertThatThrownBy(() -> DataDirectory.open(folder))
          .isInstanceOf(ConfigurationException.class)
          .hasMessageContaining("another control plane");
    }
  }
}
