package dev.foredeck.policy;

import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;

/// What a policy compiles into the sandbox itself. A driver that cannot enforce it refuses to
/// launch.
///
/// @param readOnly absolute paths that must not be writable
/// @param readWrite absolute paths that may be writable; empty means the driver's default
///   (`/workspace`, `/tmp`)
/// @param memoryBytes most memory a sandbox may ask for
/// @param diskBytes most workspace disk
/// @param cpuMillis most CPU, in thousandths of a core
/// @param pids most processes and threads
/// @param lifetime longest time to live
/// @param isolation the least that must stand between sandbox and host
public record Boundary(
    List<String> readOnly,
    List<String> readWrite,
    OptionalLong memoryBytes,
    OptionalLong diskBytes,
    OptionalInt cpuMillis,
    OptionalInt pids,
    Optional<Duration> lifetime,
    Isolation isolation) {

  public static final Boundary NONE =
      new Boundary(
          List.of(),
          List.of(),
          OptionalLong.empty(),
          OptionalLong.empty(),
          OptionalInt.empty(),
          OptionalInt.empty(),
          Optional.empty(),
          Isolation.STANDARD);

  public Boundary {
    readOnly = List.copyOf(readOnly);
    readWrite = List.copyOf(readWrite);
  }

  /// The same with another isolation.
  public Boundary with(Isolation other) {
    return new Boundary(
        readOnly, readWrite, memoryBytes, diskBytes, cpuMillis, pids, lifetime, other);
  }
}
