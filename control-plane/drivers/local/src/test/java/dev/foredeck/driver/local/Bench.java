package dev.foredeck.driver.local;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Id;
import dev.foredeck.driver.host.Trees;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.UnaryOperator;

/// A place of its own for a test's drivers: data, sockets and user ranges that no other test sees.
final class Bench implements AutoCloseable {
  private static final AtomicInteger COUNT = new AtomicInteger();

  final LocalConfig config;

  private Bench(LocalConfig config) {
    this.config = config;
  }

  static Bench make(int maxSandboxes) throws IOException {
    Path data = Files.createTempDirectory("foredeck-local");
    Path run =
        Path.of("/run", "fdt-" + ProcessHandle.current().pid() + "-" + COUNT.incrementAndGet());
    return new Bench(
        new LocalConfig(
            data, run, Path.of("/run/foredeck-uids"), bundle(), "runc", maxSandboxes, 1L << 30));
  }

  static Bench make() throws IOException {
    return make(16);
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
