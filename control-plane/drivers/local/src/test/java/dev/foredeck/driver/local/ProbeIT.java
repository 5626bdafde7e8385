package dev.foredeck.driver.local;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.driver.host.Trees;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.Iterator;
import java.util.List;
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
    Trees.delete(Broken.unlimited());
    bench.close();
  }

  /// A broken promise and a part of the sentence that must name it.
  enum Broken {
    NETWORK("the host's net namespace", config -> without(config, "network")),
    REACHES_THE_HOST("reaches the host at 127.0.0.1", config -> without(config, "network")),
    /// The kernel itself refuses to mount this: the runtime fails, and so does the probe.
    PROCESSES("could not be completed", config -> without(config, "pid")),
    MESSAGES("ipc namespace", config -> without(config, "ipc")),
    HOST_NAME("uts namespace", config -> without(withoutHostname(config), "uts")),
    CGROUPS("cgroup namespace", config -> without(config, "cgroup")),
    USERS(
        "users of the host",
        config -> {
          map(config, 100_000);
          return config;
        }),
    CAPABILITIES(
        "CapBnd",
        config -> {
          ((ArrayNode) config.at("/process/capabilities/bounding")).add("CAP_CHOWN");
          return config;
        }),
    NEW_PRIVILEGES(
        "NoNewPrivs",
        config -> {
          ((ObjectNode) config.get("process")).put("noNewPrivileges", false);
          return config;
        }),
    SYSTEM_CALLS(
        "system calls are not filtered",
        config -> {
          ((ObjectNode) config.get("linux")).remove("seccomp");
          return config;
        }),
    USER_NAMESPACES(
        "can make a user namespace",
        config -> {
          ((ObjectNode) config.get("linux")).remove("seccomp");
          return config;
        }),
    WRITABLE_ROOT(
        "/ is mounted writable",
        config -> {
          ((ObjectNode) config.get("root")).put("readonly", false);
          return config;
        }),
    WRITABLE_SYSTEM("/usr is mounted writable", config -> option(config, "/usr", "ro", "rw")),
    WRITABLE_SOCKETS(
        "/run/foredeck is mounted writable", config -> option(config, "/run/foredeck", "ro", "rw")),
    /// The kernel keeps a mount's flags in a user namespace.
    SETUID("could not be completed", config -> option(config, "/workspace", "nosuid", "suid")),
    DEVICES("could not be completed", config -> option(config, "/workspace", "nodev", "dev")),
    MEMORY_LIMIT(
        "memory limit is",
        config -> {
          ((ObjectNode) config.at("/linux/resources")).remove("memory");
          return config;
        }),
    MEMORY_STOP(
        "is not stopped",
        config -> {
          ((ObjectNode) config.at("/linux/resources")).remove("memory");
          return config;
        }),
    PIDS(
        "pids limit is",
        config -> {
          ((ObjectNode) config.at("/linux/resources")).remove("pids");
          return config;
        }),
    CPU(
        "cpu limit is",
        config -> {
          ((ObjectNode) config.at("/linux/resources")).remove("cpu");
          return config;
        }),
    DISK(
        "more than its limit",
        config -> {
          // The workspace on the host's disk instead of its own.
          for (JsonNode mount : config.withArray("mounts")) {
            if (mount.path("destination").asText().equals("/workspace")) {
              ((ObjectNode) mount).put("source", unlimited().toString());
            }
          }
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

    /// A folder that everybody may write to, on a file system without a limit.
    private static Path unlimited() {
      try {
        Path folder = Path.of("/tmp", "foredeck-unlimited-" + ProcessHandle.current().pid());
        Files.createDirectories(folder);
        Files.setAttribute(folder, "unix:mode", 01777);
        return folder;
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }

    private static ObjectNode without(ObjectNode config, String namespace) {
      Iterator<JsonNode> all = config.at("/linux/namespaces").iterator();
      while (all.hasNext()) {
        if (all.next().path("type").asText().equals(namespace)) {
          all.remove();
        }
      }
      return config;
    }

    private static ObjectNode withoutHostname(ObjectNode config) {
      config.remove("hostname");
      return config;
    }

    private static void map(ObjectNode config, int first) {
      for (String mapping : List.of("uidMappings", "gidMappings")) {
        ((ObjectNode) config.at("/linux/" + mapping + "/0")).put("hostID", first);
      }
    }

    private static ObjectNode option(ObjectNode config, String at, String from, String to) {
      for (JsonNode mount : config.withArray("mounts")) {
        if (mount.path("destination").asText().equals(at)) {
          ArrayNode options = (ArrayNode) mount.get("options");
          for (int i = 0; i < options.size(); i++) {
            if (options.get(i).asText().equals(from)) {
              options.set(i, to);
            }
          }
        }
      }
      return config;
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
    LocalConfig config = bench.config;
    LocalConfig without =
        new LocalConfig(
            config.dataDir(),
            config.runDir(),
            config.uidSlots(),
            config.dataDir(),
            new OciRuntime("no-such-runtime"),
            config.strongRuntime(),
            config.maxSandboxes(),
            config.minFreeBytes());
    try (LocalDriver driver = new LocalDriver(without, new SecureRandom())) {
      assertThat(driver.probe(TIMEOUT))
          .anyMatch(f -> f.contains("no-such-runtime") && f.contains("apt-get install runc"))
          .anyMatch(f -> f.contains("bundle.sh"));
    }
  }
}
