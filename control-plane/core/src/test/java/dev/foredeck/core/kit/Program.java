package dev.foredeck.core.kit;

import java.io.IOException;

/// What a process of a [FakeAgent] does.
public interface Program {
  /// @return the exit code
  int run(FakeProcess self) throws InterruptedException, IOException;
}
