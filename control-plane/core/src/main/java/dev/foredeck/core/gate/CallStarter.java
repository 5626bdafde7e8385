package dev.foredeck.core.gate;

import dev.foredeck.core.Id;
import dev.foredeck.core.sandbox.Sandbox;

/// Who sees to it that a recorded call runs: the launcher. A hint; the call's row is what counts.
public interface CallStarter {
  /// A call was recorded just now.
  ///
  /// @param sandbox as it was read for the decision
  void callAdded(Sandbox sandbox, Call call);

  /// The sandbox's row changed: look at it.
  void sandboxChanged(Id sandbox);
}
