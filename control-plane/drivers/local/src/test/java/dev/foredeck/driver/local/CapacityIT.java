package dev.foredeck.driver.local;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.driver.host.Command;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.HostPlaces;
import dev.foredeck.policy.Boundary;
import java.security.SecureRandom;
import java.time.Duration;
import java.time.Instant;
import java.util.Map;
import org.junit.jupiter.api.Test;

/// Sandboxes together cannot fill the host's disk: here a disk of 256 MiB that this test mounts.
class CapacityIT {
  private static final Duration TIMEOUT = Duration.ofSeconds(30);

  @Test
  void spaceThatIsPromisedIsNotPromisedAgain() throws Exception {
    Deadline soon = Deadline.in(TIMEOUT);
    try (Bench bench = Bench.make()) {
      HostPlaces places = bench.config.places();
      String data = places.dataDir().toString();
      Command.require(soon, "mount", "mount", "-t", "tmpfs", "-o", "size=256m", "test", data);
      HostPlaces small =
          new HostPlaces(
              places.dataDir(),
              places.runDir(),
              places.uidSlots(),
              places.agentBundle(),
              places.maxSandboxes(),
              100L << 20);
      try (LocalDriver driver =
          new LocalDriver(
              new LocalConfig(small, bench.config.runtime(), bench.config.strongRuntime()),
              new SecureRandom())) {
        Id one = Bench.id("one");
        Id two = Bench.id("two");
        try {
          driver.launch(spec(one), TIMEOUT);

          // Almost nothing of the first disk is written: what counts is what it may still take.
          assertThatThrownBy(() -> driver.launch(spec(two), TIMEOUT))
              .isInstanceOf(DriverException.Full.class)
              .hasMessageContaining("promised");
          assertThat(driver.inspect(two, TIMEOUT)).isEmpty();

          driver.destroy(one, TIMEOUT);
          driver.launch(spec(two), TIMEOUT);
        } finally {
          driver.destroy(one, TIMEOUT);
          driver.destroy(two, TIMEOUT);
        }
      } finally {
        Command.require(Deadline.in(TIMEOUT), "unmount", "umount", data);
      }
    }
  }

  private static LaunchSpec spec(Id id) {
    return new LaunchSpec(
        id,
        Bench.id("tenant"),
        "host",
        new Resources(1000, 192L << 20, 96L << 20, 96),
        Boundary.NONE,
        "token",
        Map.of(),
        Instant.parse("2100-01-01T00:00:00Z"));
  }
}
