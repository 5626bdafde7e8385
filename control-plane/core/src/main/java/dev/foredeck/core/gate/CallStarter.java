package dev.foredeck.core.gate;

import dev.foredeck.core.Id;

/// Who sees to it that a recorded call runs: the launcher. A hint; the call's row is what counts.
public interface CallStarter {
  void callAdded(Id sandbox, Id call);

  /// The sandbox's row changed: look at it.
  void sandboxChanged(Id sandbox);
}
