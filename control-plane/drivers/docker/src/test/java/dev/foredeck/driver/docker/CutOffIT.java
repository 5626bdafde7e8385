package dev.foredeck.driver.docker;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.BackendState.Status;
import java.io.IOException;
import java.time.Duration;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// A control plane that dies at any step of a launch or a destroy: the next one sees what is left,
/// and either clears it or completes it.
class CutOffIT {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);
  private static final Id SANDBOX = Bench.id("cutoff");

  /// The death of the control plane, as far as code can tell: nothing catches it.
  private static final class Death extends Error {
    private static final long serialVersionUID = 1L;
  }

  private Bench bench;

  @BeforeEach
  void makePlace() throws IOException {
    bench = Bench.make();
  }

  @AfterEach
  void nothingIsLeft() throws Exception {
    try (DockerDriver driver = bench.driver()) {
      driver.destroy(SANDBOX, TIMEOUT);
      assertThat(driver.list(TIMEOUT)).isEmpty();
    }
    assertThat(bench.remains()).isEmpty();
    bench.close();
  }

  static Set<Step> launchSteps() {
    return EnumSet.range(Step.SLOT_CLAIMED, Step.RECORDED);
  }

  static Set<Step> destroySteps() {
    return EnumSet.range(Step.CONTAINER_REMOVED, Step.SLOT_FREED);
  }

  @ParameterizedTest
  @MethodSource("launchSteps")
  void aLaunchThatWasCutOffIsClearedByADestroy(Step step) throws Exception {
    dieInLaunch(step);
    try (DockerDriver next = bench.driver()) {
      Status seen = step == Step.RECORDED ? Status.RUNNING : Status.REMAINS;
      assertThat(next.list(TIMEOUT))
          .singleElement()
          .extracting(BackendState::sandbox, BackendState::status)
          .containsExactly(SANDBOX, seen);
      assertThat(next.inspect(SANDBOX, TIMEOUT).orElseThrow().status()).isEqualTo(seen);

      next.destroy(SANDBOX, TIMEOUT);

      assertThat(next.list(TIMEOUT)).isEmpty();
      assertThat(bench.remains()).isEmpty();
    }
  }

  @ParameterizedTest
  @MethodSource("launchSteps")
  void aLaunchThatWasCutOffIsCompletedByTheNext(Step step) throws Exception {
    dieInLaunch(step);
    try (DockerDriver next = bench.driver()) {
      next.launch(Bench.spec(SANDBOX), TIMEOUT);

      Bench.runs(next, SANDBOX);
    }
  }

  @ParameterizedTest
  @MethodSource("destroySteps")
  void aDestroyThatWasCutOffIsCompletedByTheNext(Step step) throws Exception {
    try (DockerDriver first = bench.driver()) {
      first.launch(Bench.spec(SANDBOX), TIMEOUT);
      Bench.runs(first, SANDBOX);
    }
    try (DockerDriver dying = bench.driver(dyingAt(step))) {
      assertThatThrownBy(() -> dying.destroy(SANDBOX, TIMEOUT)).isInstanceOf(Death.class);
    }
    try (DockerDriver next = bench.driver()) {
      List<BackendState> left = next.list(TIMEOUT);
      if (step == Step.SLOT_FREED) {
        assertThat(left).isEmpty();
      } else {
        assertThat(left)
            .singleElement()
            .satisfies(state -> {
              assertThat(state.sandbox()).isEqualTo(SANDBOX);
              assertThat(state.status()).isNotEqualTo(Status.RUNNING);
            });
      }

      next.destroy(SANDBOX, TIMEOUT);

      assertThat(bench.remains()).isEmpty();
    }
  }

  private void dieInLaunch(Step step) {
    try (DockerDriver dying = bench.driver(dyingAt(step))) {
      assertThatThrownBy(() -> dying.launch(Bench.spec(SANDBOX), TIMEOUT))
          .isInstanceOf(Death.class);
    }
  }

  private static Step.Observer dyingAt(Step step) {
    return reached -> {
      if (reached == step) {
        throw new Death();
      }
    };
  }
}
