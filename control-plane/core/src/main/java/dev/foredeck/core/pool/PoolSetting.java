package dev.foredeck.core.pool;

import dev.foredeck.core.sandbox.ProvisionRequest;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;

/// A pool as the operator configured it: what a request would say, and how many.
///
/// @param template empty: the driver's first
/// @param policy empty: `default`
public record PoolSetting(
    Optional<String> template,
    Optional<String> policy,
    OptionalInt cpuMillis,
    OptionalLong memoryBytes,
    OptionalLong diskBytes,
    PoolSize size) {

  ProvisionRequest request() {
    return new ProvisionRequest(
        template,
        cpuMillis,
        memoryBytes,
        diskBytes,
        Optional.empty(),
        policy,
        Map.of(),
        Map.of(),
        List.of(),
        Optional.empty(),
        Optional.empty(),
        List.of(),
        Optional.empty());
  }
}
