package dev.foredeck.driver.docker;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.DriverContract;
import java.io.IOException;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.BeforeEach;

/// The contract, on real containers: needs root, a daemon, an image and the agent's bundle.
class DockerDriverIT extends DriverContract {
  private Bench bench;
  private DockerDriver driver;

  /// Of the daemon, for every sandbox.
  Optional<String> runtime() {
    return Optional.empty();
  }

  @BeforeEach
  void start() throws IOException {
    bench = Bench.make(runtime());
    driver = bench.driver();
  }

  @Override
  protected void release() throws IOException {
    driver.close();
    bench.close();
  }

  @Override
  protected Driver driver() {
    return driver;
  }

  @Override
  protected void restart() {
    driver.close();
    driver = bench.driver();
  }

  @Override
  protected void endAgent(Id sandbox) throws IOException {
    ProcessHandle.of(bench.pid(sandbox)).orElseThrow().destroyForcibly();
  }

  @Override
  protected List<String> appendTo(String file) {
    return List.of("sh", "-c", "echo x >> " + file);
  }
}
