package dev.foredeck.driver.docker;

import dev.foredeck.driver.host.HostPlaces;
import java.net.URI;
import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;

/// Which daemon the Docker driver uses, and what it makes sandboxes from.
///
/// @param daemon `unix:///path`: the daemon's socket on this host
/// @param templates names of templates and the images that they stand for; the first is the
///   default. What is not listed is not run
/// @param runtime the daemon's runtime for every sandbox, as `runsc`; empty: the daemon's default
public record DockerConfig(
    HostPlaces places, URI daemon, Map<String, String> templates, Optional<String> runtime) {
  /// Where a daemon listens unless it is told otherwise.
  public static final URI DEFAULT_DAEMON = URI.create("unix:///var/run/docker.sock");

  /// What `boundary.isolation: strong` asks for: a kernel of the sandbox's own.
  static final String STRONG_RUNTIME = "runsc";

  public DockerConfig {
    templates = Collections.unmodifiableMap(new LinkedHashMap<>(templates));
    if (templates.isEmpty()) {
      throw new IllegalArgumentException("there must be at least one template");
    }
    if (!"unix".equals(daemon.getScheme()) || daemon.getPath() == null) {
      throw new IllegalArgumentException(
          "the Docker daemon "
              + daemon
              + " is not on this host: the driver needs unix:///path/to/docker.sock, because a"
              + " sandbox's disk and sockets are folders of the daemon's own host");
    }
  }

  Path socket() {
    return Path.of(daemon.getPath());
  }

  /// Tells this control plane's containers from those of others.
  String deployment() {
    return HostPlaces.hash(places.dataDir());
  }
}
