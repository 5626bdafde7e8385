package dev.foredeck.driver.docker;

import dev.foredeck.core.Id;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;

/// Containers with a kernel of their own, on a daemon with user namespaces.
class GvisorEscapeIT extends DockerEscape {
  GvisorEscapeIT() throws IOException {
    super(Optional.of(DockerConfig.STRONG_RUNTIME));
  }

  @Override
  public String column() {
    return "docker (gVisor)";
  }

  @Override
  protected Kernel kernel() {
    return Kernel.OWN;
  }

  /// As the host's kernel has it: gVisor's own knows nothing of the host's users.
  @Override
  protected String userMap(Id id) throws IOException {
    return Files.readString(Path.of("/proc", Long.toString(pid(id)), "uid_map"));
  }
}
