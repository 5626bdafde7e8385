package dev.foredeck.driver.local;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.driver.host.CutOffContract;
import dev.foredeck.driver.host.HostBench;
import dev.foredeck.policy.Isolation;
import java.io.IOException;

class CutOffIT extends CutOffContract {
  OciRuntime runtime() {
    return OciRuntime.RUNC;
  }

  @Override
  protected HostBench bench() throws IOException {
    return Bench.make(runtime());
  }

  @Override
  protected LaunchSpec spec(Id sandbox) {
    return Bench.spec(sandbox, Isolation.STANDARD);
  }
}
