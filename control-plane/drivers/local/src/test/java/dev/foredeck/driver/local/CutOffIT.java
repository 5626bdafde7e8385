package dev.foredeck.driver.local;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.AgentDialogue;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.driver.host.KernelTables;
import dev.foredeck.policy.Boundary;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// A control plane that dies at any step of a launch or a destroy: the next one sees what is left,
/// and either clears it or completes it.
class CutOffIT {
  private static final Duration TIMEOUT = Duration.ofSeconds(30);
  private static final Id SANDBOX = Bench.id("cutoff");
  private static final String TOKEN = "token";
  private static final LaunchSpec SPEC =
      new LaunchSpec(
          SANDBOX,
          Bench.id("tenant"),
          "host",
          new Resources(1000, 192L << 20, 16L << 20, 96),
          Boundary.NONE,
          TOKEN,
          Map.of(),
          Instant.EPOCH);

  /// The death of the control plane, as far as code can tell: nothing catches it.
  private static final class Death extends Error {
    private static final long serialVersionUID = 1L;
  }

  private Bench bench;

  OciRuntime runtime() {
    return OciRuntime.RUNC;
  }

  @BeforeEach
  void makePlace() throws IOException {
    bench = Bench.make(runtime());
  }

  @AfterEach
  void nothingIsLeft() throws Exception {
    try (LocalDriver driver = bench.driver()) {
      driver.destroy(SANDBOX, TIMEOUT);
      assertThat(driver.list(TIMEOUT)).isEmpty();
    }
    assertThat(remains()).isEmpty();
    bench.close();
  }

  static Set<Step> launchSteps() {
    return EnumSet.range(Step.SLOT_CLAIMED, Step.RECORDED);
  }

  static Set<Step> destroySteps() {
    return EnumSet.range(Step.KILLED, Step.SLOT_FREED);
  }

  @ParameterizedTest
  @MethodSource("launchSteps")
  void aLaunchThatWasCutOffIsClearedByADestroy(Step step) throws Exception {
    dieInLaunch(step);
    try (LocalDriver next = bench.driver()) {
      assertThat(next.list(TIMEOUT))
          .singleElement()
          .extracting(BackendState::sandbox, BackendState::status)
          .containsExactly(SANDBOX, step == Step.RECORDED ? Status.RUNNING : Status.REMAINS);

      next.destroy(SANDBOX, TIMEOUT);

      assertThat(next.list(TIMEOUT)).isEmpty();
      assertThat(remains()).isEmpty();
    }
  }

  @ParameterizedTest
  @MethodSource("launchSteps")
  void aLaunchThatWasCutOffIsCompletedByTheNext(Step step) throws Exception {
    dieInLaunch(step);
    try (LocalDriver next = bench.driver()) {
      next.launch(SPEC, TIMEOUT);

      runs(next);
    }
  }

  @ParameterizedTest
  @MethodSource("destroySteps")
  void aDestroyThatWasCutOffIsCompletedByTheNext(Step step) throws Exception {
    try (LocalDriver first = bench.driver(Step.Observer.NONE)) {
      first.launch(SPEC, TIMEOUT);
      runs(first);
    }
    try (LocalDriver dying = bench.driver(dyingAt(step))) {
      assertThatThrownBy(() -> dying.destroy(SANDBOX, TIMEOUT)).isInstanceOf(Death.class);
    }
    try (LocalDriver next = bench.driver()) {
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

      assertThat(remains()).isEmpty();
    }
  }

  private void dieInLaunch(Step step) {
    try (LocalDriver dying = bench.driver(dyingAt(step))) {
      assertThatThrownBy(() -> dying.launch(SPEC, TIMEOUT)).isInstanceOf(Death.class);
    }
  }

  private static Step.Observer dyingAt(Step step) {
    return reached -> {
      if (reached == step) {
        throw new Death();
      }
    };
  }

  private static void runs(LocalDriver driver) throws Exception {
    assertThat(
            AgentDialogue.run(
                    driver.connect(SANDBOX, TOKEN, TIMEOUT), "call0000000000000000", "echo", "up")
                .text())
        .isEqualTo("up\n");
  }

  /// Looked up without the driver's own code.
  private List<String> remains() throws IOException {
    String data = bench.config.dataDir().toString();
    try (Stream<String> mounts = Files.lines(Path.of("/proc/self/mountinfo"));
        Stream<Path> loops = Files.list(Path.of("/sys/block"));
        Stream<Path> slots = Files.list(bench.config.uidSlots());
        Stream<Path> cgroups =
            Files.find(
                Path.of("/sys/fs/cgroup"),
                4,
                (path, _) -> path.getFileName().toString().equals(SANDBOX.value()));
        Stream<Path> sandboxes = Files.list(bench.config.sandboxes());
        Stream<Path> sockets =
            Files.isDirectory(bench.config.sockets())
                ? Files.list(bench.config.sockets())
                : Stream.of();
        Stream<ProcessHandle> processes = ProcessHandle.allProcesses()) {
      return Stream.of(
              mounts.filter(line -> line.contains(data)),
              loops
                  .map(loop -> KernelTables.readIfPresent(loop.resolve("loop/backing_file")))
                  .flatMap(java.util.Optional::stream)
                  .filter(file -> file.contains(data)),
              slots
                  .filter(slot -> {
                    try {
                      return Files.readSymbolicLink(slot).startsWith(bench.config.runDir());
                    } catch (IOException _) {
                      // Another test's, and just gone.
                      return false;
                    }
                  })
                  .map(Path::toString),
              cgroups
                  .filter(path -> path.toString().contains(bench.config.cgroupParent()))
                  .map(Path::toString),
              sandboxes.map(Path::toString),
              sockets.map(Path::toString),
              processes
                  .filter(process ->
                      process.info().commandLine().filter(l -> l.contains(data)).isPresent())
                  .map(process -> "process " + process.pid()))
          .flatMap(all -> all)
          .toList();
    }
  }
}
