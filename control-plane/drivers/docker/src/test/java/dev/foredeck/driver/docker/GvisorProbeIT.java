package dev.foredeck.driver.docker;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.github.dockerjava.api.command.CreateContainerCmd;
import com.github.dockerjava.api.model.Capability;
import com.github.dockerjava.api.model.HostConfig;
import dev.foredeck.core.Id;
import dev.foredeck.core.driver.AgentDialogue;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.docker.OwnDaemon.OciRuntime;
import dev.foredeck.policy.Isolation;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// What a container with a kernel of its own promises, each broken once: by a runtime of the daemon
/// that is told something else, or by what the daemon is told of the container. And who gets such a
/// container. On a daemon without user namespaces, which gVisor then makes for itself.
class GvisorProbeIT {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);
  private static final Id SANDBOX = Bench.id("strong");

  /// Of a runtime that keeps every promise.
  private static final List<String> SOUND =
      List.of(
          "--platform=systrap",
          "--network=none",
          "--host-uds=open",
          "--overlay2=none",
          "--oci-seccomp=true",
          "--directfs=false");

  private static OwnDaemon daemon;
  private Bench bench;

  /// A broken promise, the argument that breaks it (in place of the sound one), and a part of the
  /// sentence that must name it.
  enum Broken {
    SYSTEM_CALLS("can make a user namespace", "--oci-seccomp=false"),
    LIMITS("control group", "--ignore-cgroups=true"),
    SOCKETS("could not be completed", "--host-uds=none"),
    USERS("may be the host's root", "--directfs=true"),
    NETWORK("the host's net namespace", "--network=host");

    private final String says;
    private final String argument;

    Broken(String says, String argument) {
      this.says = says;
      this.argument = argument;
    }

    private String runtime() {
      return "runsc-" + name();
    }

    private List<String> arguments() {
      List<String> arguments = new ArrayList<>(SOUND);
      arguments.removeIf(sound -> sound.startsWith(argument.substring(0, argument.indexOf('='))));
      arguments.add(argument);
      return arguments;
    }
  }

  /// What is broken by what the daemon is told.
  enum BrokenContainer {
    CAPABILITIES(
        "programs have capabilities", host -> host.withCapDrop().withCapAdd(Capability.CHOWN)),
    WRITABLE_ROOT("/ is mounted writable", host -> host.withReadonlyRootfs(false)),
    MEMORY_LIMIT("memory limit is", host -> host.withMemorySwap(null).withMemory(400L << 20)),
    MEMORY_STOP("is not stopped", host -> host.withMemorySwap(0L).withMemory(0L)),
    PIDS("pids limit is", host -> host.withPidsLimit(0L)),
    CPU("cpu limit is", host -> host.withCpuQuota(0L).withCpuPeriod(0L)),
    RUNTIME("not run on a kernel of its own", host -> host.withRuntime("runc"));

    private final String says;

    @SuppressWarnings("ImmutableEnumChecker") // each is a function without state
    private final Consumer<HostConfig> tamper;

    BrokenContainer(String says, Consumer<HostConfig> tamper) {
      this.says = says;
      this.tamper = tamper;
    }
  }

  @BeforeAll
  static void startDaemon() throws Exception {
    String runsc = Bench.environment("FOREDECK_RUNSC");
    Map<String, OciRuntime> runtimes = new HashMap<>();
    runtimes.put(DockerConfig.STRONG_RUNTIME, new OciRuntime(runsc, SOUND));
    for (Broken broken : Broken.values()) {
      runtimes.put(broken.runtime(), new OciRuntime(runsc, broken.arguments()));
    }
    daemon = OwnDaemon.start(runtimes);
  }

  @AfterAll
  static void stopDaemon() throws Exception {
    daemon.remove();
  }

  @BeforeEach
  void makePlace() throws IOException {
    bench = Bench.make(daemon.uri());
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

  private static DockerDriver tampered(Bench bench, Consumer<HostConfig> tamper) {
    return bench.tampered(create -> {
      tamper.accept(host(create));
      return create;
    });
  }

  private static HostConfig host(CreateContainerCmd create) {
    return Objects.requireNonNull(create.getHostConfig());
  }

  @ParameterizedTest
  @EnumSource
  void aBrokenPromiseOfTheRuntimeIsFound(Broken broken) {
    try (DockerDriver driver =
        tampered(
            bench.on(broken.runtime()),
            host -> {
              if (broken == Broken.NETWORK) {
                // With a namespace of its own the host's network would be an empty one.
                host.withSysctls(Map.of()).withNetworkMode("host");
              }
            })) {
      // Shorter than usual: an agent that cannot reach its socket is waited for to the end.
      assertThat(driver.probe(Duration.ofSeconds(15)))
          .anyMatch(finding -> finding.contains(broken.says));
    }
  }

  @ParameterizedTest
  @EnumSource
  void aBrokenPromiseOfTheContainerIsFound(BrokenContainer broken) {
    try (DockerDriver driver = tampered(bench.on(DockerConfig.STRONG_RUNTIME), broken.tamper)) {
      assertThat(driver.probe(TIMEOUT)).anyMatch(finding -> finding.contains(broken.says));
    }
  }

  @Test
  void aSoundDaemonHasNoFindingAndNothingIsLeft() throws Exception {
    try (DockerDriver driver = bench.on(DockerConfig.STRONG_RUNTIME).driver()) {
      assertThat(driver.probe(TIMEOUT)).isEmpty();
      assertThat(driver.list(TIMEOUT)).isEmpty();
    }
  }

  @Test
  void aPolicyThatDemandsAKernelOfItsOwnGetsOne() throws Exception {
    try (DockerDriver driver = bench.driver()) {
      assertThatThrownBy(() -> driver.launch(Bench.spec(SANDBOX, Isolation.STRONG), TIMEOUT))
          .isInstanceOf(DriverException.Refused.class)
          .hasMessageContaining("has not been probed");
      assertThat(driver.probe(TIMEOUT)).isEmpty();

      driver.launch(Bench.spec(SANDBOX, Isolation.STRONG), TIMEOUT);

      assertThat(kernelOf(driver)).contains("gvisor");
      driver.destroy(SANDBOX, TIMEOUT);
      driver.launch(Bench.spec(SANDBOX), TIMEOUT);
      assertThat(kernelOf(driver)).isEqualTo(Files.readString(Path.of("/proc/version")));
    }
  }

  @Test
  void oneThatDoesNotHoldIsRefusedAndOthersRun() throws Exception {
    try (DockerDriver driver =
        tampered(
            bench,
            host -> {
              if (DockerConfig.STRONG_RUNTIME.equals(host.getRuntime())) {
                host.withReadonlyRootfs(false);
              }
            })) {
      assertThat(driver.probe(TIMEOUT)).isEmpty();

      assertThatThrownBy(() -> driver.launch(Bench.spec(SANDBOX, Isolation.STRONG), TIMEOUT))
          .isInstanceOf(DriverException.Refused.class)
          .hasMessageContaining("isolation strong")
          .hasMessageContaining("/ is mounted writable");
      driver.launch(Bench.spec(SANDBOX), TIMEOUT);
      Bench.runs(driver, SANDBOX);
    }
  }

  private static String kernelOf(DockerDriver driver) throws Exception {
    return AgentDialogue.run(
            driver.connect(SANDBOX, Bench.TOKEN, TIMEOUT), Bench.call(), "cat", "/proc/version")
        .text();
  }
}
