package dev.foredeck.core.gate;

import dev.foredeck.core.Id;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// What a door asks of the gate: decoded, bounded and normalised, or it does not exist.
public sealed interface ToolCall {

  /// `process.start`, `file.read`, ...
  String tool();

  /// A tool that runs a process.
  sealed interface Run extends ToolCall {
    /// Absolute path in the sandbox; `/workspace` by default.
    String cwd();

    /// Added to the sandbox's own.
    Map<String, String> env();

    Optional<Duration> timeout();

    /// Whether stdin is a pipe that `POST .../stdin` fills; else it is empty.
    boolean stdin();
  }

  record ProcessStart(
      List<String> argv,
      String cwd,
      Map<String, String> env,
      Optional<Duration> timeout,
      boolean stdin)
      implements Run {
    public ProcessStart {
      argv = List.copyOf(argv);
      env = Map.copyOf(env);
    }

    @Override
    public String tool() {
      return "process.start";
    }
  }

  /// @param language `python`, `bash` or `javascript`
  record CodeRun(
      String language,
      String code,
      String cwd,
      Map<String, String> env,
      Optional<Duration> timeout,
      boolean stdin)
      implements Run {
    public CodeRun {
      env = Map.copyOf(env);
    }

    @Override
    public String tool() {
      return "code.run";
    }
  }

  /// @param signal name without `SIG`, as `TERM`
  record ProcessSignal(Id call, String signal) implements ToolCall {
    @Override
    public String tool() {
      return "process.signal";
    }
  }

  /// @param path relative to the workspace, normalised, without `..`; the same for every file tool
  record FileRead(String path) implements ToolCall {
    @Override
    public String tool() {
      return "file.read";
    }
  }

  /// @param size declared by the client, or -1
  record FileWrite(String path, long size) implements ToolCall {
    @Override
    public String tool() {
      return "file.write";
    }
  }

  /// @param depth 1 to 16
  record FileList(String path, int depth) implements ToolCall {
    @Override
    public String tool() {
      return "file.list";
    }
  }

  record FileStat(String path) implements ToolCall {
    @Override
    public String tool() {
      return "file.stat";
    }
  }

  record FileMove(String path, String target) implements ToolCall {
    @Override
    public String tool() {
      return "file.move";
    }
  }

  record FileRemove(String path, boolean recursive) implements ToolCall {
    @Override
    public String tool() {
      return "file.remove";
    }
  }
}
