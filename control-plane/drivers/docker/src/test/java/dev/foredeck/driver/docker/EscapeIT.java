package dev.foredeck.driver.docker;

import java.io.IOException;
import java.util.Optional;

/// Containers on the host's kernel.
class EscapeIT extends DockerEscape {
  EscapeIT() throws IOException {
    super(Optional.empty());
  }
}
