package dev.foredeck.cli;

import java.io.PrintStream;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;

/// What a command has from the shell that started it.
///
/// @param folder the current one
/// @param err for what went wrong
record Surroundings(
    Map<String, String> environment, Path folder, Terminal terminal, PrintStream err) {
  Surroundings {
    environment = Map.copyOf(environment);
  }

  /// Empty where it is not set or set to nothing.
  Optional<String> variable(String name) {
    return Optional.ofNullable(environment.get(name)).filter(value -> !value.isBlank());
  }
}
