package dev.foredeck.core.gate;

import dev.foredeck.protocol.Message.Script;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/// How the languages of `code.run` are run: an interpreter, and a script file that the agent
/// appends to its argv.
public final class Interpreters {
  /// Languages that `run.language` may name.
  public static final Set<String> LANGUAGES = Set.of("python", "bash", "javascript");

  private Interpreters() {}

  static List<String> argv(ToolCall.Run run) {
    return switch (run) {
      case ToolCall.ProcessStart start -> start.argv();
      case ToolCall.CodeRun code ->
          switch (code.language()) {
            // -u: what a program prints is seen when it prints it.
            case "python" -> List.of("python3", "-u");
            case "bash" -> List.of("bash");
            case "javascript" -> List.of("node");
            case String other -> throw new IllegalStateException("no interpreter for " + other);
          };
    };
  }

  static Optional<Script> script(ToolCall.Run run) {
    return switch (run) {
      case ToolCall.ProcessStart _ -> Optional.empty();
      case ToolCall.CodeRun code ->
          Optional.of(
              new Script(
                  switch (code.language()) {
                    case "python" -> ".py";
                    case "bash" -> ".sh";
                    case "javascript" -> ".js";
                    case String other ->
                        throw new IllegalStateException("no interpreter for " + other);
                  },
                  code.code().getBytes(StandardCharsets.UTF_8)));
    };
  }
}
