package dev.foredeck.driver.local;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.driver.host.HostBench;
import dev.foredeck.driver.host.HostPlaces;
import dev.foredeck.driver.host.Trees;
import java.io.IOException;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// Each promise is broken once, by changing what the runtime is told, and the probe must say so.
class ProbeIT {
  private static final Duration TIMEOUT = Duration.ofSeconds(30);
  private Bench bench;

  @BeforeEach
  void makePlace() throws IOException {
    bench = Bench.make();
  }

  @AfterEach
  void removePlace() throws Exception {
    try (LocalDriver driver = bench.driver()) {
      assertThat(driver.list(TIMEOUT)).isEmpty();
    }
    Trees.delete(HostBench.unlimited());
    bench.close();
  }

  /// A broken promise and a part of the sentence that must name it.
  enum Broken {
    NETWORK("the host's net namespace", Tampering.without("network")),
    REACHES_THE_HOST("reaches the host at 127.0.0.1", Tampering.without("network")),
    /// The kernel itself refuses to mount this: the runtime fails, and so does the probe.
    PROCESSES("could not be completed", Tampering.without("pid")),
    MESSAGES("ipc namespace", Tampering.without("ipc")),
    HOST_NAME(
        "uts namespace",
        config -> {
          config.remove("hostname");
          return Tampering.without("uts").apply(config);
        }),
    CGROUPS("cgroup namespace", Tampering.without("cgroup")),
    USERS("users of the host", Tampering::withUsersOfTheHost),
    AGENT("agent runs as user 101000", Tampering::withUsersOfTheHost),
    CAPABILITIES("CapBnd", Tampering.withCapabilities("bounding")),
    NEW_PRIVILEGES(
        "NoNewPrivs",
        config -> {
          ((ObjectNode) config.get("process")).put("noNewPrivileges", false);
          return config;
        }),
    SYSTEM_CALLS("system calls are not filtered", Tampering::withoutSystemCallFilter),
    USER_NAMESPACES("can make a user namespace", Tampering::withoutSystemCallFilter),
    WRITABLE_ROOT("/ is mounted writable", Tampering::withWritableRoot),
    WRITABLE_SYSTEM("/usr is mounted writable", Tampering.withOption("/usr", "ro", "rw")),
    WRITABLE_SOCKETS(
        "/run/foredeck is mounted writable", Tampering.withOption("/run/foredeck", "ro", "rw")),
    /// The kernel keeps a mount's flags in a user namespace.
    SETUID("could not be completed", Tampering.withOption("/workspace", "nosuid", "suid")),
    DEVICES("could not be completed", Tampering.withOption("/workspace", "nodev", "dev")),
    MEMORY_LIMIT("memory limit is", Tampering.withoutLimit("memory")),
    MEMORY_STOP("is not stopped", Tampering.withoutLimit("memory")),
    PIDS("pids limit is", Tampering.withoutLimit("pids")),
    CPU("cpu limit is", Tampering.withoutLimit("cpu")),
    DISK(
        "more than its limit",
        config -> {
          // The workspace on the host's disk instead of its own.
          Tampering.mount(config, "/workspace").put("source", HostBench.unlimited().toString());
          return config;
        }),
    NO_AGENT(
        "could not be completed",
        config -> {
          ((ArrayNode) config.at("/process/args")).removeAll().add("/bin/true");
          return config;
        });

    private final String says;

    @SuppressWarnings("ImmutableEnumChecker") // each is a function without state
    private final UnaryOperator<ObjectNode> tamper;

    Broken(String says, UnaryOperator<ObjectNode> tamper) {
      this.says = says;
      this.tamper = tamper;
    }
  }

  @ParameterizedTest
  @EnumSource
  void aBrokenPromiseIsFound(Broken broken) {
    try (LocalDriver driver = bench.tampered(broken.tamper)) {
      assertThat(driver.probe(TIMEOUT)).anyMatch(finding -> finding.contains(broken.says));
    }
  }

  @Test
  void aSoundHostHasNoFindingAndNothingIsLeft() throws Exception {
    try (LocalDriver driver = bench.driver()) {
      assertThat(driver.probe(TIMEOUT)).isEmpty();
      assertThat(driver.list(TIMEOUT)).isEmpty();
    }
  }

  @Test
  void aMissingRuntimeIsNamedWithWhatInstallsIt() {
    HostPlaces places = bench.config.places();
    LocalConfig without =
        new LocalConfig(
            new HostPlaces(
                places.dataDir(),
                places.runDir(),
                places.uidSlots(),
                places.dataDir(),
                places.maxSandboxes(),
                places.minFreeBytes()),
            new OciRuntime("no-such-runtime"),
            bench.config.strongRuntime());
    try (LocalDriver driver = new LocalDriver(without, new SecureRandom())) {
      assertThat(driver.probe(TIMEOUT))
          .anyMatch(f -> f.contains("no-such-runtime") && f.contains("apt-get install runc"))
          .anyMatch(f -> f.contains("bundle.sh"));
    }
  }
}
