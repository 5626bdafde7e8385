package dev.foredeck.driver.host;

import dev.foredeck.core.Resources;

/// What is different for sandboxes that run on a kernel of their own (gVisor's).
public final class OwnKernel {
  private static final int KERNEL_PIDS = 64;

  private OwnKernel() {}

  /// What the host has to allow. With a kernel of its own each of a sandbox's processes is two of
  /// the host (measured: 314 more for 150), beside that kernel itself (28 when idle), and passing
  /// the host's limit would end it as a whole. So as many as were asked for fit, and its own kernel
  /// refuses more: the agent starts each program with `RLIMIT_NPROC`.
  public static Resources onTheHost(Resources asked) {
    return new Resources(
        asked.cpuMillis(), asked.memoryBytes(), asked.diskBytes(), 2 * asked.pids() + KERNEL_PIDS);
  }
}
