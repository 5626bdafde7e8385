package dev.foredeck.policy;

import java.util.List;

/// What is asked of a policy: the typed inputs that rules match on. One record per family of
/// actions; CEL sees its components by the names in each record's comment.
public sealed interface Action {

  /// The action's name in a rule: `process.start`, `file.read`, ...
  String name();

  /// `process.start`; CEL: `process.argv`, `process.cwd`, `process.env` (names only),
  /// `process.stdin`, `process.background`, `process.certain` (false where argv runs a shell's or
  /// an interpreter's text).
  record ProcessStart(
      List<String> argv, String cwd, List<String> env, boolean stdin, boolean background)
      implements Action {
    public ProcessStart {
      argv = List.copyOf(argv);
      env = List.copyOf(env);
    }

    @Override
    public String name() {
      return "process.start";
    }
  }

  /// `process.signal` (cancel too); CEL: `signal.name`, as `TERM`.
  record ProcessSignal(String signal) implements Action {
    @Override
    public String name() {
      return "process.signal";
    }
  }

  /// `code.run`; CEL: `code.language`, `code.text`, `code.cwd`.
  record CodeRun(String language, String text, String cwd) implements Action {
    @Override
    public String name() {
      return "code.run";
    }
  }

  /// `file.read|write|list|stat|move|remove`; CEL: `file.path` (relative to the workspace,
  /// normalised), `file.target` (of a move, else empty), `file.size` (of a write where it is
  /// declared, else -1).
  record FileAccess(String name, String path, String target, long size) implements Action {}

  /// `egress.connect`: CEL: `egress.host` (lower case, no trailing dot), `egress.port`,
  /// `egress.method` (`CONNECT` for a tunnel), `egress.path` (empty for a tunnel).
  record EgressConnect(String host, int port, String method, String path) implements Action {
    @Override
    public String name() {
      return "egress.connect";
    }
  }
}
