package dev.foredeck.core.gate;

/// What a tool's name says about it.
public final class ToolNames {
  private ToolNames() {}

  /// Whether its calls run a process, as opposed to being done at once.
  public static boolean runs(String tool) {
    return tool.equals("process.start") || tool.equals("code.run");
  }
}
