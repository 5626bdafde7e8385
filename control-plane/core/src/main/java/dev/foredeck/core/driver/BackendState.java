package dev.foredeck.core.driver;

import dev.foredeck.core.Id;

/// What the backend says of one sandbox, and nothing else: readiness is composed above.
///
/// @param sandbox whose it is
/// @param status what the backend sees
/// @param detail for a person, as `exit status 137 (out of memory)`; empty where there is nothing
///   to say
public record BackendState(Id sandbox, Status status, String detail) {
  public enum Status {
    /// Something of it exists and it may come up.
    STARTING,
    /// Its first process (the agent) runs.
    RUNNING,
    /// Its first process has ended; remains may exist.
    EXITED,
    /// No process, but folders, mounts, cgroups or the like: destroy clears them.
    REMAINS
  }
}
