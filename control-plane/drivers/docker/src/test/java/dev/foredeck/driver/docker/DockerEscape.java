package dev.foredeck.driver.docker;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.EscapeContract;
import dev.foredeck.driver.host.HostPlaces;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.EnumSet;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;
import java.util.regex.Pattern;

/// What must not work in a container, whatever the daemon runs it with.
abstract class DockerEscape extends EscapeContract {
  private final Bench bench;
  private final DockerDriver driver;

  /// @param runtime of the daemon; empty: its default
  DockerEscape(Optional<String> runtime) throws IOException {
    bench = Bench.make(runtime);
    driver = bench.driver();
  }

  /// The host's number of the container's first process.
  long pid(Id sandbox) throws IOException {
    return bench.pid(sandbox);
  }

  @Override
  protected Driver driver() {
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
    return EnumSet.of(Tool.PYTHON3, Tool.GIT, Tool.PERL, Tool.COREUTILS, Tool.NAMES, Tool.TERMINAL);
  }

  @Override
  protected Pattern user() {
    // Another one for each sandbox; beyond all of the host's where the daemon has no namespaces.
    return Pattern.compile(usersFrom().isPresent() ? "[1-4][0-9]{3}" : "(18|19|20|21)[0-9]{8}");
  }

  @Override
  protected OptionalLong usersFrom() {
    OptionalInt first = bench.facts().firstUid();
    return first.isPresent() ? OptionalLong.of(first.getAsInt()) : OptionalLong.empty();
  }
}
