package dev.foredeck.driver.local;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Id;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.host.Command;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.Trees;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.UnaryOperator;

/// A place of its own for a test's drivers: data, sockets and user ranges that no other test sees.
final class Bench implements AutoCloseable {
  private static final AtomicInteger COUNT = new AtomicInteger();

  final LocalConfig config;

  private Bench(LocalConfig config) {
    this.config = config;
  }

  static Bench make(OciRuntime runtime) throws IOException {
    Path data = Files.createTempDirectory("foredeck-local");
    Path run =
        Path.of("/run", "fdt-" + ProcessHandle.current().pid() + "-" + COUNT.incrementAndGet());
    return new Bench(
        new LocalConfig(
            data, run, Path.of("/run/foredeck-uids"), bundle(), runtime, runsc(), 16, 1L << 30));
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

  /// The real agent: in the folder that `-Dforedeck.agentBundle=DIR` names, else made here by its
  /// own script, which does nothing when it is made already.
  static synchronized Path bundle() throws IOException {
    String named = System.getProperty("foredeck.agentBundle");
    if (named != null) {
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
    return new LocalDriver(config, new SecureRandom());
  }

  LocalDriver driver(Step.Observer observer) {
    return new LocalDriver(config, new SecureRandom(), observer, UnaryOperator.identity());
  }

  LocalDriver tampered(UnaryOperator<ObjectNode> tamper) {
    return new LocalDriver(config, new SecureRandom(), Step.Observer.NONE, tamper);
  }

  static Id id(String name) {
    return new Id(("sbx" + name + "0000000000000000").substring(0, 20));
  }

  @Override
  public void close() throws IOException {
    Trees.delete(config.runDir());
    Trees.delete(config.dataDir());
  }
}
