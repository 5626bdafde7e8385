package dev.foredeck.driver.local;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Id;
import java.io.IOException;
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

  /// Where `bundle.sh` has put the agent: `-Dforedeck.agentBundle=DIR`.
  static Path bundle() {
    String folder = System.getProperty("foredeck.agentBundle");
    if (folder == null) {
      throw new IllegalStateException(
          "-Dforedeck.agentBundle must name the folder that sandbox-agent/agent/bundle.sh made");
    }
    return Path.of(folder);
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
