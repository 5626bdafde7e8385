package dev.foredeck.driver.local;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.DriverContract;
import dev.foredeck.core.driver.DriverException;
import java.io.IOException;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;

/// The contract, on real sandboxes: needs root, `runc` and the agent's bundle.
class LocalDriverIT extends DriverContract {
  private Bench bench;
  private LocalDriver driver;

  OciRuntime runtime() {
    return OciRuntime.RUNC;
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
  protected void endAgent(Id sandbox) throws IOException, DriverException {
    ProcessHandle.of(driver.pid(sandbox)).orElseThrow().destroyForcibly();
  }

  @Override
  protected List<String> appendTo(String file) {
    return List.of("sh", "-c", "echo x >> " + file);
  }
}
