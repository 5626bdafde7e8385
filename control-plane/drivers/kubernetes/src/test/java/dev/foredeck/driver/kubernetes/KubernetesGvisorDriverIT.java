package dev.foredeck.driver.kubernetes;

import java.util.Optional;

/// The contract, in pods with a kernel of their own.
class KubernetesGvisorDriverIT extends KubernetesDriverIT {
  @Override
  public String column() {
    return "kubernetes (gVisor)";
  }

  @Override
  KubernetesConfig config(Cluster cluster) {
    return cluster.config(Cluster.base(Optional.of("gvisor")));
  }
}
