package dev.foredeck.driver.docker;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.driver.host.CutOffContract;
import dev.foredeck.driver.host.HostBench;
import dev.foredeck.driver.host.Step;
import java.io.IOException;
import java.util.Set;

class CutOffIT extends CutOffContract {
  @Override
  protected HostBench bench() throws IOException {
    return Bench.make();
  }

  @Override
  protected LaunchSpec spec(Id sandbox) {
    return Bench.spec(sandbox);
  }

  /// The daemon forgets a container, and removes its cgroups, when it ends it.
  @Override
  protected Set<Step> destroySteps() {
    Set<Step> steps = super.destroySteps();
    steps.removeAll(Set.of(Step.FORGOTTEN, Step.CGROUPS_REMOVED));
    return steps;
  }
}
