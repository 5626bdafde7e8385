package dev.foredeck.driver.docker;

import java.util.Optional;

/// The contract with a kernel in each container: the daemon needs gVisor as the runtime `runsc`
/// (`./foredeck docker up` gives its own one).
class GvisorDriverIT extends DockerDriverIT {
  @Override
  public String column() {
    return "docker (gVisor)";
  }

  @Override
  Optional<String> runtime() {
    return Optional.of(DockerConfig.STRONG_RUNTIME);
  }
}
