package dev.foredeck.driver.local;

import dev.foredeck.driver.host.HostPlaces;
import java.nio.file.Path;

/// Where the local driver keeps what it makes, and what runs it.
///
/// @param places the run folder holds root file systems and the runtime's state too; every user
///   must be able to enter its parents
/// @param runtime what makes sandboxes
/// @param strongRuntime what makes those whose policy demands isolation `strong`: the same one, or
///   another that may be missing, and then such sandboxes are refused
public record LocalConfig(HostPlaces places, OciRuntime runtime, OciRuntime strongRuntime) {
  public LocalConfig {
    if (!strongRuntime.hasItsOwnKernel()) {
      throw new IllegalArgumentException(
          "strongRuntime must be gVisor's runsc, not " + strongRuntime.program());
    }
  }

  /// With these runtimes.
  ///
  /// @param runsc for policies that demand isolation `strong`, where `runtime` is not gVisor's
  public static LocalConfig of(HostPlaces places, OciRuntime runtime, OciRuntime runsc) {
    return new LocalConfig(places, runtime, runtime.hasItsOwnKernel() ? runtime : runsc);
  }

  Path roots() {
    return places.runDir().resolve("roots");
  }

  Path runtimeState() {
    return places.runDir().resolve("runtime");
  }

  /// The name of our parent cgroup.
  String cgroupParent() {
    return "foredeck-" + HostPlaces.hash(places.dataDir());
  }
}
