package dev.foredeck.driver.local;

/// The contract with a kernel in each sandbox: needs root, gVisor (see [Bench#runsc]) and the
/// agent's bundle.
class GvisorDriverIT extends LocalDriverIT {
  @Override
  public String column() {
    return "local (gVisor)";
  }

  @Override
  OciRuntime runtime() {
    return Bench.runsc();
  }
}
