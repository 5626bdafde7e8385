package dev.foredeck.driver.docker;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.github.dockerjava.api.DockerClient;
import dev.foredeck.core.Id;
import dev.foredeck.core.driver.AgentDialogue;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.policy.Isolation;
import java.io.IOException;
import java.time.Duration;
import java.util.Map;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/// What happens to sandboxes when the daemon or a container is taken away under them. On a daemon
/// of its own, which it may kill.
@Timeout(180)
class FaultsIT {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);
  private static final Id SANDBOX = Bench.id("faults");
  private static OwnDaemon daemon;
  private Bench bench;
  private DockerDriver driver;

  @BeforeAll
  static void startDaemon() throws Exception {
    daemon = OwnDaemon.start(Map.of());
  }

  @AfterAll
  static void stopDaemon() throws Exception {
    daemon.remove();
  }

  @BeforeEach
  void launch() throws Exception {
    bench = Bench.make(daemon.uri());
    driver = bench.driver();
    driver.launch(Bench.spec(SANDBOX), TIMEOUT);
    Bench.runs(driver, SANDBOX);
  }

  @AfterEach
  void nothingIsLeft() throws Exception {
    driver.destroy(SANDBOX, TIMEOUT);
    driver.close();
    assertThat(bench.remains()).isEmpty();
    bench.close();
  }

  @Test
  void sandboxesGoOnWhileTheDaemonRestarts() throws Exception {
    daemon.stop();

    Bench.runs(driver, SANDBOX);
    assertThat(driver.inspect(SANDBOX, TIMEOUT))
        .contains(new BackendState(SANDBOX, Status.RUNNING, ""));
    daemon.up();
    Bench.runs(driver, SANDBOX);
    assertThat(driver.list(TIMEOUT)).contains(new BackendState(SANDBOX, Status.RUNNING, ""));
  }

  @Test
  void sandboxesGoOnWhenTheDaemonIsKilled() throws Exception {
    daemon.kill();

    Bench.runs(driver, SANDBOX);
    daemon.up();
    Bench.runs(driver, SANDBOX);
    assertThat(driver.list(TIMEOUT)).contains(new BackendState(SANDBOX, Status.RUNNING, ""));
  }

  @Test
  void aDestroyFailsCleanlyWhileTheDaemonIsAwayAndCompletesLater() throws Exception {
    daemon.kill();
    try {
      assertThatThrownBy(() -> driver.destroy(SANDBOX, TIMEOUT))
          .isInstanceOf(DriverException.Failed.class)
          .hasMessageContaining("does not answer");
      assertThatThrownBy(() -> driver.launch(Bench.spec(Bench.id("other")), TIMEOUT))
          .isInstanceOf(DriverException.Failed.class)
          .hasMessageContaining("does not answer");
      assertThatThrownBy(() -> driver.list(TIMEOUT)).isInstanceOf(DriverException.Failed.class);
      // Nothing of it was touched.
      Bench.runs(driver, SANDBOX);
    } finally {
      daemon.up();
    }

    driver.destroy(SANDBOX, TIMEOUT);

    assertThat(bench.remains()).isEmpty();
  }

  @Test
  void theEventsAreHeardAgainAfterTheDaemonCameBack() throws Exception {
    daemon.kill();
    daemon.up();

    removeBehindOurBack();

    awaitNotThere();
  }

  @Test
  void whatEndedWhileTheDaemonWasAwayIsSeen() throws Exception {
    daemon.kill();
    try {
      ProcessHandle.of(bench.pid(SANDBOX)).orElseThrow().destroyForcibly();

      assertThatThrownBy(() -> waitForAgent()).isInstanceOf(DriverException.NotThere.class);
    } finally {
      daemon.up();
    }
    assertThat(driver.inspect(SANDBOX, TIMEOUT).orElseThrow().status()).isEqualTo(Status.EXITED);
  }

  @Test
  void aContainerThatWasRemovedBehindOurBackIsSaidToBe() throws Exception {
    removeBehindOurBack();

    awaitNotThere();
    BackendState state = driver.inspect(SANDBOX, TIMEOUT).orElseThrow();
    assertThat(state.status()).isEqualTo(Status.EXITED);
    assertThat(state.detail()).contains("removed by somebody else");
  }

  @Test
  void anAgentThatIsKilledForWantOfMemoryIsSaidToBe() throws Exception {
    // Files in memory stay when who wrote them is killed: in the end only the agent is left to
    // kill.
    String fill = "for f in /tmp/a /dev/shm/a /var/tmp/a; do head -c 200m /dev/zero > $f; done";
    OwnDaemon.await(
        "the agent is killed",
        () -> {
          try {
            AgentDialogue.run(
                driver.connect(SANDBOX, Bench.TOKEN, TIMEOUT), Bench.call(), "sh", "-c", fill);
            return false;
          } catch (DriverException.NotThere _) {
            return true;
          } catch (IOException _) {
            // Killed while we spoke with it.
            return driver.inspect(SANDBOX, TIMEOUT).orElseThrow().status() == Status.EXITED;
          }
        });
    assertThat(driver.inspect(SANDBOX, TIMEOUT).orElseThrow().detail())
        .contains("the memory limit was reached");
  }

  @Test
  void anImageThatIsMissingIsNamedWithWhatLoadsIt() throws Exception {
    try (DockerDriver other = bench.with(Map.of("base", "no-such-image:1")).driver()) {
      Id id = Bench.id("missing");
      assertThatThrownBy(() -> other.launch(Bench.spec(id), TIMEOUT))
          .isInstanceOf(DriverException.Refused.class)
          .hasMessageContaining("template base")
          .hasMessageContaining("no image no-such-image:1")
          .hasMessageContaining("docker pull");
      assertThat(other.inspect(id, TIMEOUT)).isEmpty();
    }
  }

  @Test
  void strongIsolationIsRefusedWhereTheDaemonCannotGiveIt() throws Exception {
    assertThat(driver.probe(TIMEOUT)).isEmpty();
    LaunchSpec strong = Bench.spec(Bench.id("strong"), Isolation.STRONG);

    assertThatThrownBy(() -> driver.launch(strong, TIMEOUT))
        .isInstanceOf(DriverException.Refused.class)
        .hasMessageContaining("no runtime runsc");
  }

  @Test
  void aContainerOfSomebodyElseIsLeftAlone() throws Exception {
    Id id = Bench.id("theirs");
    try (DockerClient docker = bench.client()) {
      String theirs =
          docker
              .createContainerCmd(Bench.image())
              .withName("foredeck-" + id)
              .withCmd("true")
              .exec()
              .getId();
      try {
        assertThatThrownBy(() -> driver.destroy(id, TIMEOUT))
            .isInstanceOf(DriverException.Failed.class)
            .hasMessageContaining("not of this deployment");
        assertThat(docker.inspectContainerCmd(theirs).exec().getId()).isEqualTo(theirs);
      } finally {
        docker.removeContainerCmd(theirs).withForce(true).exec();
      }
    }
  }

  private void removeBehindOurBack() throws Exception {
    try (DockerClient docker = bench.client()) {
      docker.removeContainerCmd("foredeck-" + SANDBOX).withForce(true).exec();
    }
  }

  /// With an hour to wait: only noticing ends it.
  private void awaitNotThere() {
    assertThatThrownBy(this::waitForAgent).isInstanceOf(DriverException.NotThere.class);
  }

  private void waitForAgent() throws DriverException {
    while (true) {
      driver.connect(SANDBOX, Bench.TOKEN, Duration.ofHours(1)).connection().close();
    }
  }
}
