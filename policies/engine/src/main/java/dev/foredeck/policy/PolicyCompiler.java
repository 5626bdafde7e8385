package dev.foredeck.policy;

import java.util.Optional;
import java.util.function.Function;

/// Turns the YAML source of a policy into a [Policy].
public final class PolicyCompiler {
  private final Function<String, Optional<String>> sources;

  /// @param sources the source of a policy by name, for `extends`
  public PolicyCompiler(Function<String, Optional<String>> sources) {
    this.sources = sources;
  }

  /// @param file the name that faults carry
  /// @throws PolicyException with every fault found
  public Policy compile(String file, String source) {
    throw new UnsupportedOperationException(file + source + sources);
  }
}
