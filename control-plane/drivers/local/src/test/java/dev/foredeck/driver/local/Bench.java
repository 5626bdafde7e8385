package dev.foredeck.driver.local;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.driver.host.Command;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.HostBench;
import dev.foredeck.driver.host.Step;
import dev.foredeck.policy.Boundary;
import dev.foredeck.policy.Isolation;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import java.security.SecureRandom;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;

/// A place of its own for a test's local drivers.
final class Bench extends HostBench {
  final LocalConfig config;

  private Bench(LocalConfig config) {
    super(config.places());
    this.config = config;
  }

  static Bench make(OciRuntime runtime) throws IOException {
    return new Bench(new LocalConfig(places("local", bundle()), runtime, runsc()));
  }

  static Bench make() throws IOException {
    return make(OciRuntime.RUNC);
  }

  /// gVisor, which most hosts do not have: `FOREDECK_RUNSC` names it, else it is the one that
  /// `deploy/test-cluster/build.sh runsc` built. Without either the tests that need it fail.
  static OciRuntime runsc() {
    String named = System.getenv("FOREDECK_RUNSC");
    if (named != null && !named.isEmpty()) {
      return new OciRuntime(named);
    }
    try {
      Path script = Path.of("../../../deploy/test-cluster/build.sh").toAbsolutePath().normalize();
      String built =
          Command.require(
              Deadline.in(Duration.ofSeconds(20)),
              "look for a runsc that was built here",
              "bash",
              script.toString(),
              "--only-built",
              "runsc");
      if (built.isEmpty()) {
        throw new AssertionError(
            "gVisor is needed here: name its runsc by FOREDECK_RUNSC, or run " + script + " runsc");
      }
      return new OciRuntime(built);
    } catch (DriverException.Failed e) {
      throw new AssertionError("gVisor is needed here: " + e.getMessage(), e);
    }
  }

  /// The real agent: in the folder that `FOREDECK_AGENT_BUNDLE` names, else made here by its own
  /// script, which does nothing when it is made already.
  private static synchronized Path bundle() throws IOException {
    String named = System.getenv("FOREDECK_AGENT_BUNDLE");
    if (named != null && !named.isEmpty()) {
      return Path.of(named);
    }
    Path agent = Path.of("../../../sandbox-agent/agent").toAbsolutePath().normalize();
    Path folder = agent.resolve("target/bundle");
    ProcessBuilder script =
        new ProcessBuilder("sh", agent.resolve("bundle.sh").toString(), folder.toString())
            .redirectErrorStream(true);
    script.environment().put("JAVA_HOME", System.getProperty("java.home"));
    Process process = script.start();
    String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    try {
      if (process.waitFor() != 0) {
        throw new IOException("bundle.sh failed: " + said);
      }
    } catch (InterruptedException e) {
      throw new IOException("interrupted while the agent was bundled", e);
    }
    return folder;
  }

  LocalDriver driver() {
    return driver(Step.Observer.NONE);
  }

  @Override
  public LocalDriver driver(Step.Observer observer) {
    return new LocalDriver(config, new SecureRandom(), observer, UnaryOperator.identity());
  }

  LocalDriver tampered(UnaryOperator<ObjectNode> tamper) {
    return new LocalDriver(config, new SecureRandom(), Step.Observer.NONE, tamper);
  }

  static LaunchSpec spec(Id id, Isolation isolation) {
    return new LaunchSpec(
        id,
        id("tenant"),
        HostTemplate.NAME,
        new Resources(1000, 192L << 20, 16L << 20, 96),
        Boundary.NONE.with(isolation),
        TOKEN,
        Map.of(),
        Instant.EPOCH);
  }

  @Override
  protected List<String> remainsOfTheRuntime() throws IOException {
    String ours = config.cgroupParent() + "/sbx";
    List<String> remains = new ArrayList<>();
    Files.walkFileTree(
        Path.of("/sys/fs/cgroup"),
        Set.of(),
        4,
        new SimpleFileVisitor<>() {
          @Override
          public FileVisitResult preVisitDirectory(Path group, BasicFileAttributes attributes) {
            if (group.toString().contains(ours)) {
              remains.add(group.toString());
            }
            return FileVisitResult.CONTINUE;
          }

          // A group of somebody else's went while we looked: it is none of ours that stayed.
          @Override
          public FileVisitResult visitFileFailed(Path group, IOException e) throws IOException {
            if (e instanceof NoSuchFileException) {
              return FileVisitResult.CONTINUE;
            }
            throw e;
          }

          @Override
          public FileVisitResult postVisitDirectory(Path group, @Nullable IOException e)
              throws IOException {
            return e == null ? FileVisitResult.CONTINUE : visitFileFailed(group, e);
          }
        });
    return remains;
  }
}
