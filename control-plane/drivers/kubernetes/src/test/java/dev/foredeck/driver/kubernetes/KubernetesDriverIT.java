package dev.foredeck.driver.kubernetes;

import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.DriverContract;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/// The contract, on pods of a real cluster.
@Timeout(value = 3, unit = TimeUnit.MINUTES)
class KubernetesDriverIT extends DriverContract {
  private Cluster cluster;
  private KubernetesDriver driver;

  @BeforeEach
  void start() throws IOException {
    cluster = Cluster.join();
    driver = cluster.driver(config(cluster));
  }

  KubernetesConfig config(Cluster cluster) {
    return cluster.config(Cluster.base(Optional.of("runc")));
  }

  @Override
  protected void release() throws IOException {
    driver.close();
    cluster.close();
  }

  @Override
  protected Driver driver() {
    return driver;
  }

  @Override
  protected void restart() {
    driver.close();
    driver = cluster.driver(config(cluster));
  }

  /// Long before its time is over: a warm one may have to make room for it.
  @Test
  void aPodWithoutRoomIsFullAtOnce() {
    LaunchSpec spec = spec();
    LaunchSpec huge =
        new LaunchSpec(
            spec.sandbox(),
            spec.tenant(),
            spec.template(),
            new Resources(1000, 64L << 40, 64L << 20, 128),
            spec.boundary(),
            spec.token(),
            spec.labels(),
            spec.expiresAt());
    assertThatThrownBy(() -> driver.launch(huge, Duration.ofDays(1)))
        .isInstanceOf(DriverException.Full.class)
        .hasMessageContaining("Insufficient memory");
  }

  /// A program of the sandbox's user may end process 1, which is of the same user.
  @Override
  protected void endAgent(Id sandbox) throws Exception {
    try {
      var _ = run(sandbox, "bash", "-c", "kill -SEGV 1");
    } catch (IOException _) {
      // It ended before it could say how the program did.
    }
  }

  @Override
  protected List<String> appendTo(String file) {
    return List.of("sh", "-c", "echo x >> " + file);
  }
}
