package dev.foredeck.driver.kubernetes;

import java.io.IOException;

/// Pods with a kernel of their own, whose users are nobody's outside it.
class KubernetesGvisorEscapeIT extends PodEscape {
  KubernetesGvisorEscapeIT() throws IOException {
    super("gvisor");
  }

  @Override
  public String column() {
    return "kubernetes (gVisor)";
  }

  @Override
  protected Kernel kernel() {
    return Kernel.OWN;
  }

  @Override
  protected Filter filter() {
    return Filter.OF_ITS_OWN_KERNEL;
  }

  @Override
  protected Sysfs sysfs() {
    return Sysfs.OF_ITS_OWN_KERNEL;
  }
}
