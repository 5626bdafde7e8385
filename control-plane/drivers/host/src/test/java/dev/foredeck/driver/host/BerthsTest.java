package dev.foredeck.driver.host;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.policy.Boundary;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.Map;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Sandboxes together cannot take more than this host has. Without a file system in any image,
/// which needs root.
class BerthsTest {
  private static final Id ONE = HostBench.id("one");
  private static final Id TWO = HostBench.id("two");
  private final Deadline soon = Deadline.in(Duration.ofSeconds(30));

  @TempDir private Path folder;
  private long most;

  @BeforeEach
  void lookAtTheDisk() throws Exception {
    // Enough for one such disk and, whatever else is written here meanwhile, not for two.
    most = Files.getFileStore(folder).getUsableSpace() / 10 * 6;
  }

  @Test
  void spaceThatIsPromisedIsNotPromisedAgain() throws Exception {
    Berths berths = berths(16, 0);
    berths.take(spec(ONE, most), Step.Observer.NONE, soon);

    // Nothing of the first disk is written: what counts is what it may still take.
    assertThatThrownBy(() -> berths.take(spec(TWO, most), Step.Observer.NONE, soon))
        .isInstanceOf(DriverException.Full.class)
        .hasMessageContaining(most + " are promised");
    assertThat(berths.ids()).containsExactly(ONE);
    assertThat(berths.exists(TWO)).isFalse();

    berths.clear(ONE, Step.Observer.NONE, soon);
    berths.take(spec(TWO, most), Step.Observer.NONE, soon);
    assertThat(berths.ids()).containsExactly(TWO);
  }

  @Test
  void spaceForEverythingElseIsLeft() {
    assertThatThrownBy(() -> berths(16, most).take(spec(ONE, most), Step.Observer.NONE, soon))
        .isInstanceOf(DriverException.Full.class)
        .hasMessageContaining("would leave less than " + most);
  }

  @Test
  void thereAreNoMoreThanMayBe() throws Exception {
    Berths berths = berths(1, 0);
    berths.take(spec(ONE, 1 << 20), Step.Observer.NONE, soon);

    assertThatThrownBy(() -> berths.take(spec(TWO, 1 << 20), Step.Observer.NONE, soon))
        .isInstanceOf(DriverException.Full.class)
        .hasMessageContaining("has 1 sandboxes, and may have 1");
  }

  @Test
  void aFullHostCanProveItself() throws Exception {
    Berths berths = berths(1, 0);
    berths.take(spec(ONE, 1 << 20), Step.Observer.NONE, soon);

    berths.take(spec(Canary.ID, 1 << 20), Step.Observer.NONE, soon);

    assertThat(berths.ids()).containsExactlyInAnyOrder(ONE, Canary.ID);
  }

  private Berths berths(int maxSandboxes, long minFreeBytes) {
    HostPlaces places =
        new HostPlaces(
            folder.resolve("data"),
            Path.of("/run/no-such-folder"),
            folder.resolve("slots"),
            folder,
            maxSandboxes,
            minFreeBytes);
    return new Berths(places, new AgentSockets(places));
  }

  private static LaunchSpec spec(Id id, long diskBytes) {
    return new LaunchSpec(
        id,
        HostBench.id("tenant"),
        "any",
        new Resources(1000, 192L << 20, diskBytes, 96),
        Boundary.NONE,
        HostBench.TOKEN,
        Map.of(),
        Instant.EPOCH);
  }
}
