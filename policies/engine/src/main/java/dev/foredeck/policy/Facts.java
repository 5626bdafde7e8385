package dev.foredeck.policy;

import dev.cel.runtime.CelVariableResolver;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// What the conditions see of one action: CEL's variables by their qualified names. The names and
/// types are declared in [Conditions]; both must agree, which a test holds.
final class Facts implements CelVariableResolver {
  private final Action action;
  private final boolean certain;

  /// Read by most conditions, so normalised once.
  private final String cwd;

  Facts(Action action, boolean certain) {
    this.action = action;
    this.certain = certain;
    this.cwd =
        switch (action) {
          case Action.ProcessStart process -> normal(process.cwd());
          case Action.CodeRun code -> normal(code.cwd());
          case Action.ProcessSignal _, Action.FileAccess _, Action.EgressConnect _ -> "";
        };
  }

  @Override
  public Optional<Object> find(String name) {
    return switch (action) {
      case Action.ProcessStart process -> find(process, name);
      case Action.ProcessSignal signal ->
          name.equals("signal.name") ? Optional.of(signal.signal()) : Optional.empty();
      case Action.CodeRun code -> find(code, name);
      case Action.FileAccess file -> find(file, name);
      case Action.EgressConnect egress -> find(egress, name);
    };
  }

  private Optional<Object> find(Action.ProcessStart process, String name) {
    return switch (name) {
      case "process.argv" -> Optional.of(process.argv());
      case "process.cwd" -> Optional.of(cwd);
      case "process.env" -> Optional.of(process.env());
      case "process.stdin" -> Optional.of(process.stdin());
      case "process.background" -> Optional.of(process.background());
      case "process.certain" -> Optional.of(certain);
      default -> Optional.empty();
    };
  }

  private Optional<Object> find(Action.CodeRun code, String name) {
    return switch (name) {
      case "code.language" -> Optional.of(code.language());
      case "code.text" -> Optional.of(code.text());
      case "code.cwd", "process.cwd" -> Optional.of(cwd);
      default -> Optional.empty();
    };
  }

  private static Optional<Object> find(Action.FileAccess file, String name) {
    return switch (name) {
      case "file.path" -> Optional.of(file.path());
      case "file.target" -> Optional.of(file.target());
      case "file.size" -> Optional.of(file.size());
      default -> Optional.empty();
    };
  }

  private static Optional<Object> find(Action.EgressConnect egress, String name) {
    return switch (name) {
      case "egress.host" -> Optional.of(egress.host());
      case "egress.port" -> Optional.of((long) egress.port());
      case "egress.method" -> Optional.of(egress.method());
      case "egress.path" -> Optional.of(egress.path());
      default -> Optional.empty();
    };
  }

  /// Without `.`, `..` and `//`, so that no condition on a path's beginning is fooled by them. What
  /// symbolic links do is for the sandbox's mounts to contain.
  private static String normal(String path) {
    if (!path.contains("/.") && !path.contains("//") && !path.endsWith("/")) {
      return path;
    }
    List<String> names = new ArrayList<>();
    for (String name : path.split("/", -1)) {
      if (name.equals("..")) {
        if (!names.isEmpty()) {
          names.removeLast();
        }
      } else if (!name.isEmpty() && !name.equals(".")) {
        names.add(name);
      }
    }
    return "/" + String.join("/", names);
  }
}
