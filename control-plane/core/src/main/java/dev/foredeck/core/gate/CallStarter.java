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

  /// A call was recorded just now.
  ///
  /// @param sandbox as it was read for the decision
  void callAdded(Sandbox sandbox, Call call);

  /// The gate does this call itself, from before it is recorded until [#callDone]: while it does,
  /// nobody else ends it, however long a file's stream takes.
  void callBegins(Id call);

  /// The gate has let go of the call: its end is recorded, or could not be recorded. Then it is
  /// ended as lost when its deadline has passed.
  void callDone(Id call);

  /// The sandbox's row changed: look at it.
  void sandboxChanged(Id sandbox);
}
