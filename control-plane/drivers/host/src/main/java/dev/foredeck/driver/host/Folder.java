package dev.foredeck.driver.host;

import java.nio.file.Path;

/// What one sandbox has on disk.
public record Folder(Path path) {
  /// Says what it was launched from.
  public Path launch() {
    return path.resolve("launch.json");
  }

  /// Says which process it is; written last.
  public Path process() {
    return path.resolve("process.json");
  }

  public Path bundle() {
    return path.resolve("bundle");
  }

  public Path image() {
    return path.resolve("disk.img");
  }

  /// The image's mount point.
  public Path disk() {
    return path.resolve("disk");
  }

  /// Beside the workspace on the sandbox's own disk, so that it counts against the sandbox's limit;
  /// not in the workspace, so that nobody in there can open it.
  public Path agentLog() {
    return disk().resolve("agent.log");
  }

  public Path workspace() {
    return disk().resolve("workspace");
  }
}
