package dev.foredeck.driver.local;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.DriverException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/// Sandboxes with a kernel of their own: see [Bench#runsc].
class GvisorEscapeIT extends LocalEscape {
  @Override
  public String column() {
    return "local (gVisor)";
  }

  GvisorEscapeIT() throws IOException {
    super(Bench.runsc());
  }

  @Override
  protected Kernel kernel() {
    return Kernel.OWN;
  }

  /// As the host's kernel has it: gVisor's own knows nothing of the host's users.
  @Override
  protected String userMap(Id id) throws IOException, DriverException {
    return Files.readString(Path.of("/proc", Long.toString(driver().pid(id)), "uid_map"));
  }
}
