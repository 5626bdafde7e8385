package dev.foredeck.core.gate;

import dev.foredeck.core.Id;
import dev.foredeck.core.sandbox.Sandbox;
import java.util.Optional;

/// Who sees to it that a recorded call runs: the launcher. A hint; the call's row is what counts.
public interface CallStarter {
  /// A sandbox was recorded just now: look after it.
  ///
  /// @param call its first
  void sandboxMade(Sandbox sandbox, Optional<Call> call);

  void callAdded(Id sandbox, Id call);

  /// The sandbox's row changed: look at it.
  void sandboxChanged(Id sandbox);
}
