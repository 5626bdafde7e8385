package dev.foredeck.driver.local;

import java.io.IOException;

/// Sandboxes on the host's kernel.
class EscapeIT extends LocalEscape {
  EscapeIT() throws IOException {
    super(OciRuntime.RUNC);
  }
}
