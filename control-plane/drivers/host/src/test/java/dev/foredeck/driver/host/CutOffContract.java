package dev.foredeck.driver.host;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.LaunchSpec;
import java.io.IOException;
import java.time.Duration;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// A control plane that dies at any step of a launch or a destroy: the next one sees what is left,
/// and either clears it or completes it.
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
public abstract class CutOffContract {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);
  private static final Id SANDBOX = HostBench.id("cutoff");

  /// The death of the control plane, as far as code can tell: nothing catches it.
  private static final class Death extends Error {
    private static final long serialVersionUID = 1L;
  }

  private HostBench bench;

  protected abstract HostBench bench() throws IOException;

  /// With [HostBench#TOKEN].
  protected abstract LaunchSpec spec(Id sandbox);

  protected Set<Step> launchSteps() {
    return EnumSet.range(Step.SLOT_CLAIMED, Step.RECORDED);
  }

  /// All that the driver has: one that it never reaches fails.
  protected Set<Step> destroySteps() {
    return EnumSet.range(Step.ENDED, Step.SLOT_FREED);
  }

  @BeforeEach
  void makePlace() throws IOException {
    bench = bench();
  }

  @AfterEach
  void nothingIsLeft() throws Exception {
    try (Driver driver = sound()) {
      driver.destroy(SANDBOX, TIMEOUT);
      assertThat(driver.list(TIMEOUT)).isEmpty();
    }
    assertThat(bench.remains()).isEmpty();
    bench.close();
  }

  @ParameterizedTest
  @MethodSource("launchSteps")
  void aLaunchThatWasCutOffIsClearedByADestroy(Step step) throws Exception {
    dieInLaunch(step);
    try (Driver next = sound()) {
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
    try (Driver next = sound()) {
      next.launch(spec(SANDBOX), TIMEOUT);

      HostBench.runs(next, SANDBOX);
    }
  }

  @ParameterizedTest
  @MethodSource("destroySteps")
  void aDestroyThatWasCutOffIsCompletedByTheNext(Step step) throws Exception {
    try (Driver first = sound()) {
      first.launch(spec(SANDBOX), TIMEOUT);
      HostBench.runs(first, SANDBOX);
    }
    try (Driver dying = bench.driver(dyingAt(step))) {
      assertThatThrownBy(() -> dying.destroy(SANDBOX, TIMEOUT)).isInstanceOf(Death.class);
    }
    try (Driver next = sound()) {
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

  private Driver sound() {
    return bench.driver(Step.Observer.NONE);
  }

  private void dieInLaunch(Step step) {
    try (Driver dying = bench.driver(dyingAt(step))) {
      assertThatThrownBy(() -> dying.launch(spec(SANDBOX), TIMEOUT)).isInstanceOf(Death.class);
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
