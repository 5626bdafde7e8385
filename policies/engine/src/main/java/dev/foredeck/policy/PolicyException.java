package dev.foredeck.policy;

import java.util.List;
import java.util.stream.Collectors;

/// A policy that cannot be loaded, with every fault found in it.
public final class PolicyException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /// @param line from 1
  /// @param column from 1
  /// @param code stable: `unknown-field`, `wrong-type`, `bad-value`, `missing-field`,
  ///   `not-supported`, `duplicate-id`, `cel`, `yaml`, `widens`
  /// @param message what is wrong and what would be right, with a suggestion where one is near
  public record Fault(String file, int line, int column, String code, String message) {
    @Override
    public String toString() {
      return file + ":" + line + ":" + column + ": " + code + ": " + message;
    }
  }

  private final transient List<Fault> faults;

  public PolicyException(List<Fault> faults) {
    super(faults.stream().map(Fault::toString).collect(Collectors.joining("\n")));
    this.faults = List.copyOf(faults);
  }

  public List<Fault> faults() {
    return faults;
  }
}
