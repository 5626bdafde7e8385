package dev.foredeck.driver.local;

/// The same where each sandbox has a kernel of its own: see [Bench#runsc].
class GvisorCutOffIT extends CutOffIT {
  @Override
  OciRuntime runtime() {
    return Bench.runsc();
  }
}
