package dev.foredeck.driver.docker;

import static org.assertj.core.api.Assertions.assertThat;

import com.github.dockerjava.api.command.CreateContainerCmd;
import com.github.dockerjava.api.model.Capability;
import com.github.dockerjava.api.model.HostConfig;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.driver.host.Canary;
import dev.foredeck.driver.host.HostBench;
import dev.foredeck.driver.host.HostPlaces;
import dev.foredeck.driver.host.Trees;
import java.io.IOException;
import java.net.URI;
import java.nio.file.Files;
import java.security.SecureRandom;
import java.time.Clock;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// Each promise is broken once, by changing what the daemon is told, and the probe must say so.
class ProbeIT {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);
  private Bench bench;

  @BeforeEach
  void makePlace() throws IOException {
    bench = Bench.make();
  }

  @AfterEach
  void removePlace() throws Exception {
    assertThat(bench.remains()).isEmpty();
    Trees.delete(HostBench.unlimited());
    bench.close();
  }

  /// A broken promise and a part of the sentence that must name it.
  enum Broken {
    NETWORK(
        "the host's net namespace",
        of(host -> ofTheHost(withoutSysctls(host)).withNetworkMode("host"))),
    REACHES_THE_HOST(
        "reaches the host at 127.0.0.1",
        of(host -> ofTheHost(withoutSysctls(host)).withNetworkMode("host"))),
    PROCESSES("the host's pid namespace", of(host -> ofTheHost(host).withPidMode("host"))),
    MESSAGES("the host's ipc namespace", of(host -> host.withIpcMode("host"))),
    HOST_NAME(
        "the host's uts namespace",
        create -> {
          create.withHostName("");
          host(create).withUtSMode("host");
        }),
    CGROUPS("the host's cgroup namespace", of(host -> host.withCgroupnsMode("host"))),
    USER("runs as user", create -> create.withUser("12:12")),
    CAPABILITIES("CapBnd", of(host -> host.withCapDrop().withCapAdd(Capability.CHOWN))),
    NEW_PRIVILEGES(
        "NoNewPrivs",
        of(host ->
            host.withSecurityOpts(
                Objects.requireNonNull(host.getSecurityOpts()).stream()
                    .filter(option -> option.startsWith("seccomp"))
                    .toList()))),
    SYSTEM_CALLS(
        "system calls are not filtered",
        of(host -> host.withSecurityOpts(List.of("no-new-privileges", "seccomp=unconfined")))),
    USER_NAMESPACES(
        "can make a user namespace",
        of(host -> host.withSecurityOpts(List.of("no-new-privileges", "seccomp=unconfined")))),
    WRITABLE_ROOT("/ is mounted writable", of(host -> host.withReadonlyRootfs(false))),
    WRITABLE_SOCKETS(
        "/run/foredeck is mounted writable", of(host -> writable(host, "/run/foredeck"))),
    WRITABLE_AGENT(
        "/opt/foredeck/agent is mounted writable",
        of(host -> writable(host, "/opt/foredeck/agent"))),
    QUEUES("/dev/mqueue is mounted writable", of(host -> withoutTmpfs(host, "/dev/mqueue"))),
    SETUID(
        "/tmp allows devices or setuid programs",
        of(host -> {
          Objects.requireNonNull(host.getTmpFs()).put("/tmp", "rw,suid,exec,mode=1777");
        })),
    MEMORY_LIMIT("memory limit is", of(host -> host.withMemorySwap(null).withMemory(400L << 20))),
    MEMORY_STOP("is not stopped", of(host -> host.withMemorySwap(0L).withMemory(0L))),
    PIDS("pids limit is", of(host -> host.withPidsLimit(0L))),
    CPU("cpu limit is", of(host -> host.withCpuQuota(0L).withCpuPeriod(0L))),
    DISK(
        "more than its limit",
        of(host -> {
          // The workspace on the host's disk instead of its own.
          Objects.requireNonNull(host.getMounts()).stream()
              .filter(mount -> "/workspace".equals(mount.getTarget()))
              .forEach(mount -> mount.withSource(HostBench.unlimited().toString()));
        })),
    NO_AGENT("could not be completed", create -> create.withEntrypoint("/bin/true"));

    private final String says;

    @SuppressWarnings("ImmutableEnumChecker") // each is a function without state
    private final Consumer<CreateContainerCmd> tamper;

    Broken(String says, Consumer<CreateContainerCmd> tamper) {
      this.says = says;
      this.tamper = tamper;
    }

    private static Consumer<CreateContainerCmd> of(Consumer<HostConfig> change) {
      return create -> change.accept(host(create));
    }

    private static HostConfig host(CreateContainerCmd create) {
      return Objects.requireNonNull(create.getHostConfig());
    }

    /// A daemon with user namespaces gives the host's namespaces to none but the host's users.
    private static HostConfig ofTheHost(HostConfig host) {
      return host.withUsernsMode("host");
    }

    private static HostConfig withoutSysctls(HostConfig host) {
      return host.withSysctls(Map.of());
    }

    private static HostConfig withoutTmpfs(HostConfig host, String at) {
      Objects.requireNonNull(host.getTmpFs()).remove(at);
      return host;
    }

    private static HostConfig writable(HostConfig host, String at) {
      Objects.requireNonNull(host.getMounts()).stream()
          .filter(mount -> at.equals(mount.getTarget()))
          .forEach(mount -> mount.withReadOnly(false));
      return host;
    }
  }

  @ParameterizedTest
  @EnumSource
  void aBrokenPromiseIsFound(Broken broken) {
    try (DockerDriver driver =
        bench.tampered(create -> {
          broken.tamper.accept(create);
          return create;
        })) {
      assertThat(driver.probe(TIMEOUT)).anyMatch(finding -> finding.contains(broken.says));
    }
  }

  @Test
  void aSoundDaemonHasNoFindingAndNothingIsLeft() throws Exception {
    try (DockerDriver driver = bench.driver()) {
      assertThat(driver.probe(TIMEOUT)).isEmpty();
      assertThat(driver.list(TIMEOUT)).isEmpty();
    }
  }

  /// Two control planes that start at the same time, on one daemon.
  @Test
  void probesBesideTheCanaryOfAnotherDeployment() throws Exception {
    Bench other = Bench.make();
    try (DockerDriver theirs = other.driver();
        DockerDriver ours = bench.driver()) {
      theirs.launch(Bench.spec(Canary.ID), TIMEOUT);
      try {
        assertThat(ours.probe(TIMEOUT)).isEmpty();
        assertThat(theirs.inspect(Canary.ID, TIMEOUT))
            .contains(new BackendState(Canary.ID, Status.RUNNING, ""));
      } finally {
        theirs.destroy(Canary.ID, TIMEOUT);
      }
      assertThat(other.remains()).isEmpty();
    } finally {
      other.close();
    }
  }

  @Test
  void aDaemonThatIsNotThereIsNamed() throws Exception {
    Files.createDirectories(bench.config.places().sandboxes());
    DockerConfig elsewhere =
        new DockerConfig(
            bench.config.places(),
            URI.create("unix:///run/no-such-docker.sock"),
            bench.config.templates(),
            Optional.empty());
    try (DockerDriver driver = driver(elsewhere)) {
      assertThat(driver.probe(TIMEOUT))
          .singleElement()
          .asString()
          .contains("unix:///run/no-such-docker.sock does not answer");
    }
  }

  @Test
  void aMissingImageIsNamedWithWhatLoadsIt() throws Exception {
    Files.createDirectories(bench.config.places().sandboxes());
    try (DockerDriver driver = driver(bench.with(Map.of("other", "no-such-image:1")).config)) {
      assertThat(driver.probe(TIMEOUT))
          .singleElement()
          .asString()
          .contains("template other", "no-such-image:1", "docker pull");
    }
  }

  @Test
  void aRuntimeThatTheDaemonLacksIsNamed() throws Exception {
    Files.createDirectories(bench.config.places().sandboxes());
    DockerConfig config = bench.config;
    DockerConfig other =
        new DockerConfig(
            config.places(), config.daemon(), config.templates(), Optional.of("no-such-runtime"));
    try (DockerDriver driver = driver(other)) {
      assertThat(driver.probe(TIMEOUT)).singleElement().asString().contains("no-such-runtime");
    }
  }

  @Test
  void aMissingBundleIsNamedWithWhatMakesIt() throws Exception {
    Files.createDirectories(bench.config.places().sandboxes());
    HostPlaces places = bench.config.places();
    DockerConfig without =
        new DockerConfig(
            new HostPlaces(
                places.dataDir(),
                places.runDir(),
                places.uidSlots(),
                places.dataDir(),
                places.maxSandboxes(),
                places.minFreeBytes()),
            bench.config.daemon(),
            bench.config.templates(),
            Optional.empty());
    try (DockerDriver driver = driver(without)) {
      assertThat(new ArrayList<>(driver.probe(TIMEOUT)))
          .anyMatch(finding -> finding.contains("bundle.sh"));
    }
  }

  private static DockerDriver driver(DockerConfig config) {
    return new DockerDriver(config, new SecureRandom(), Clock.systemUTC());
  }
}
