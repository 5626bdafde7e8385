package dev.foredeck.driver.local;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.EscapeContract;
import dev.foredeck.driver.host.HostPlaces;
import dev.foredeck.driver.host.UidSlots;
import dev.foredeck.driver.host.WritablePlaces;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.OptionalLong;
import java.util.Set;

/// What must not work in a sandbox of this host's own programs, whatever its runtime.
abstract class LocalEscape extends EscapeContract {
  private final Bench bench;
  private final LocalDriver driver;

  LocalEscape(OciRuntime runtime) throws IOException {
    bench = Bench.make(runtime);
    driver = bench.driver();
  }

  @Override
  protected LocalDriver driver() {
    return driver;
  }

  @Override
  protected void release() throws IOException {
    driver.close();
    bench.close();
  }

  @Override
  protected List<Path> hostPaths(Id neighbour) throws IOException {
    HostPlaces places = bench.config.places();
    Path secret = Files.writeString(places.dataDir().resolve("secret"), "secret");
    return List.of(
        secret,
        places.dataDir(),
        places.runDir(),
        places.socketFolder(neighbour),
        places.folder(neighbour).path());
  }

  @Override
  protected Set<Tool> tools() {
    return Tool.ofThisHost();
  }

  @Override
  protected List<String> writableFolders() {
    return WritablePlaces.OFFERED;
  }

  @Override
  protected OptionalLong usersFrom() {
    return OptionalLong.of(UidSlots.FIRST);
  }
}
