package dev.foredeck.driver.local;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Id;
import dev.foredeck.core.driver.AgentDialogue;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.host.Step;
import dev.foredeck.policy.Isolation;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// What a sandbox with a kernel of its own promises, each broken once: by a runtime that is told
/// something else (a script in its place), or by what the bundle says. And who gets such a sandbox.
class GvisorProbeIT {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);
  private static final Id SANDBOX = Bench.id("strong");
  private Bench bench;

  @BeforeEach
  void makePlace() throws IOException {
    bench = Bench.make();
  }

  @AfterEach
  void removePlace() throws Exception {
    try (LocalDriver driver = bench.driver()) {
      driver.destroy(SANDBOX, TIMEOUT);
      assertThat(driver.list(TIMEOUT)).isEmpty();
    }
    bench.close();
  }

  /// A broken promise, the script that stands for the runtime (`$1` is the real one), and a part of
  /// the sentence that must name it.
  enum Broken {
    KERNEL(
        "not run on a kernel of its own",
        // Only what it says of itself is gVisor's.
        """
        [ "$1" = --version ] && exec REAL --version
        for a; do shift; case $a in --platform*|--network*|--host-uds*|--overlay2*|--oci-seccomp*) ;;
          --ignore-cgroups*|--gofer-network*|--net-raw*|--allow-suid*) ;;
          *) set -- "$@" "$a" ;; esac; done
        exec runc "$@"
        """),
    NETWORK("the host's net namespace", replacing("--network=none", "--network=host")),
    SYSTEM_CALLS(
        "can make a user namespace", replacing("--oci-seccomp=true", "--oci-seccomp=false")),
    LIMITS("memory limit is", replacing("--ignore-cgroups=false", "--ignore-cgroups=true")),
    SOCKETS("could not be completed", replacing("--host-uds=open", "--host-uds=none")),
    NAME("is not what its name says", "exec runc \"$@\"\n");

    private final String says;
    private final String script;

    Broken(String says, String script) {
      this.says = says;
      this.script = script;
    }

    /// What a stand-in needs beside: runc has nowhere to mount a `/sys`, and the bundle alone would
    /// keep gVisor's host network to a namespace of its own.
    private ObjectNode tamper(ObjectNode config) {
      return switch (this) {
        case KERNEL -> Tampering.remove(config, "/mounts", "destination", "/sys");
        case NETWORK -> Tampering.without("network").apply(config);
        case SYSTEM_CALLS, LIMITS, SOCKETS, NAME -> config;
      };
    }

    private static String replacing(String from, String to) {
      return """
      for a; do shift; [ "$a" = %s ] && a=%s; set -- "$@" "$a"; done
      exec REAL "$@"
      """
          .formatted(from, to);
    }
  }

  /// What is broken by the bundle.
  enum BrokenBundle {
    USERS("users of the host", Tampering::withUsersOfTheHost),
    CAPABILITIES(
        "programs have capabilities",
        Tampering.withCapabilities("bounding", "effective", "permitted", "inheritable", "ambient")),
    WRITABLE_ROOT("/ is mounted writable", Tampering::withWritableRoot),
    MEMORY("is not stopped", Tampering.withoutLimit("memory")),
    PIDS("pids limit is", Tampering.withoutLimit("pids")),
    CPU("cpu limit is", Tampering.withoutLimit("cpu"));

    private final String says;

    @SuppressWarnings("ImmutableEnumChecker") // each is a function without state
    private final UnaryOperator<ObjectNode> tamper;

    BrokenBundle(String says, UnaryOperator<ObjectNode> tamper) {
      this.says = says;
      this.tamper = tamper;
    }
  }

  private LocalDriver driver(
      OciRuntime runtime, OciRuntime strong, UnaryOperator<ObjectNode> tamper) {
    return new LocalDriver(
        new LocalConfig(bench.config.places(), runtime, strong),
        new SecureRandom(),
        Step.Observer.NONE,
        tamper);
  }

  private OciRuntime standIn(String script) throws IOException {
    Path file = bench.config.places().dataDir().resolve("runsc-stand-in");
    Files.writeString(file, "#!/bin/sh\n" + script.replace("REAL", Bench.runsc().program()));
    Files.setPosixFilePermissions(file, PosixFilePermissions.fromString("rwxr-xr-x"));
    return new OciRuntime(file.toString());
  }

  @ParameterizedTest
  @EnumSource
  void aBrokenPromiseIsFound(Broken broken) throws Exception {
    OciRuntime runtime = standIn(broken.script);
    // An agent that cannot dial is waited for until the end of the probe.
    Duration timeout = broken == Broken.SOCKETS ? Duration.ofSeconds(10) : TIMEOUT;
    try (LocalDriver driver = driver(runtime, runtime, broken::tamper)) {
      assertThat(driver.probe(timeout)).anyMatch(finding -> finding.contains(broken.says));
    }
  }

  @ParameterizedTest
  @EnumSource
  void aBundleThatPromisesLessIsFound(BrokenBundle broken) {
    try (LocalDriver driver = driver(Bench.runsc(), Bench.runsc(), broken.tamper)) {
      assertThat(driver.probe(TIMEOUT)).anyMatch(finding -> finding.contains(broken.says));
    }
  }

  @Test
  void aSoundHostHasNoFindingAndNothingIsLeft() throws Exception {
    try (LocalDriver driver = driver(Bench.runsc(), Bench.runsc(), UnaryOperator.identity())) {
      assertThat(driver.probe(TIMEOUT)).isEmpty();
      assertThat(driver.list(TIMEOUT)).isEmpty();
    }
  }

  @Test
  void aPolicyThatDemandsAKernelOfItsOwnGetsOne() throws Exception {
    try (LocalDriver driver = driver(OciRuntime.RUNC, Bench.runsc(), UnaryOperator.identity())) {
      assertThatThrownBy(() -> driver.launch(Bench.spec(SANDBOX, Isolation.STRONG), TIMEOUT))
          .isInstanceOf(DriverException.Refused.class)
          .hasMessageContaining("has not been probed");
      assertThat(driver.probe(TIMEOUT)).isEmpty();

      driver.launch(Bench.spec(SANDBOX, Isolation.STRONG), TIMEOUT);

      assertThat(kernelOf(driver)).contains("gvisor");
      driver.destroy(SANDBOX, TIMEOUT);
      driver.launch(Bench.spec(SANDBOX, Isolation.STANDARD), TIMEOUT);
      assertThat(kernelOf(driver)).isEqualTo(Files.readString(Path.of("/proc/version")));
    }
  }

  @Test
  void whereThereIsNoneThePolicyIsRefusedAndOthersRun() throws Exception {
    try (LocalDriver driver =
        driver(OciRuntime.RUNC, new OciRuntime("/no/runsc"), UnaryOperator.identity())) {
      assertThat(driver.probe(TIMEOUT)).isEmpty();

      assertThatThrownBy(() -> driver.launch(Bench.spec(SANDBOX, Isolation.STRONG), TIMEOUT))
          .isInstanceOf(DriverException.Refused.class)
          .hasMessageContaining("isolation strong")
          .hasMessageContaining("/no/runsc is missing");
      assertThat(driver.inspect(SANDBOX, TIMEOUT)).isEmpty();
      driver.launch(Bench.spec(SANDBOX, Isolation.STANDARD), TIMEOUT);
    }
  }

  @Test
  void oneThatDoesNotHoldIsRefusedAndOthersRun() throws Exception {
    OciRuntime broken = standIn(Broken.SYSTEM_CALLS.script);
    try (LocalDriver driver = driver(OciRuntime.RUNC, broken, UnaryOperator.identity())) {
      assertThat(driver.probe(TIMEOUT)).isEmpty();

      assertThatThrownBy(() -> driver.launch(Bench.spec(SANDBOX, Isolation.STRONG), TIMEOUT))
          .isInstanceOf(DriverException.Refused.class)
          .hasMessageContaining(Broken.SYSTEM_CALLS.says);
    }
  }

  private static String kernelOf(LocalDriver driver) throws Exception {
    return AgentDialogue.run(
            driver.connect(SANDBOX, Bench.TOKEN, TIMEOUT),
            "call0000000000000000",
            "cat",
            "/proc/version")
        .text();
  }
}
