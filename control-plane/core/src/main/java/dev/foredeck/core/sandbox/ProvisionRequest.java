package dev.foredeck.core.sandbox;

import dev.foredeck.core.gate.ToolCall;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;

/// What a create request says, decoded and bounded. Every field has a default.
///
/// @param networkAllow host patterns; may only narrow what the policy allows
/// @param run what to run at once
/// @param outputs workspace paths to copy out when it has ended
/// @param destroyOnExit default: true with `run`, false without
public record ProvisionRequest(
    Optional<String> template,
    OptionalInt cpuMillis,
    OptionalLong memoryBytes,
    OptionalLong diskBytes,
    Optional<Duration> ttl,
    Optional<String> policy,
    Map<String, String> env,
    Map<String, String> labels,
    List<InlineFile> files,
    Optional<List<String>> networkAllow,
    Optional<ToolCall.Run> run,
    List<String> outputs,
    Optional<Boolean> destroyOnExit) {
  public ProvisionRequest {
    env = Map.copyOf(env);
    labels = Map.copyOf(labels);
    files = List.copyOf(files);
    networkAllow = networkAllow.map(List::copyOf);
    outputs = List.copyOf(outputs);
  }
}
