package dev.foredeck.core.store;

import dev.foredeck.core.Id;
import java.util.List;

/// What one decision changes: all of it, in order, in one transaction, or nothing.
///
/// @param sandbox whose log the events go to, and what [Change.MoveSandbox] moves
public record Commit(Id sandbox, List<Change> changes) {
  public Commit {
    changes = List.copyOf(changes);
  }

  public static Commit of(Id sandbox, Change... changes) {
    return new Commit(sandbox, List.of(changes));
  }
}
