package dev.foredeck.driver.docker;

import static org.assertj.core.api.Assertions.assertThat;

import com.github.dockerjava.api.DockerClient;
import com.github.dockerjava.api.command.CreateContainerCmd;
import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.HostBench;
import dev.foredeck.driver.host.HostPlaces;
import dev.foredeck.driver.host.Records;
import dev.foredeck.driver.host.Step;
import dev.foredeck.policy.Boundary;
import dev.foredeck.policy.Isolation;
import java.io.IOException;
import java.net.URI;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.UnaryOperator;

/// A place of its own for a test's Docker drivers. The daemon is the one that `DOCKER_HOST` names,
/// the image the first of `FOREDECK_DOCKER_TEMPLATES` (it needs sh, bash and python3), the agent is
/// in `FOREDECK_AGENT_BUNDLE`: what is missing is a failure and nothing is skipped.
final class Bench extends HostBench {
  final DockerConfig config;

  private Bench(DockerConfig config) {
    super(config.places());
    this.config = config;
  }

  static Bench make() throws IOException {
    return make(URI.create(environment("DOCKER_HOST")));
  }

  /// @param runtime of the daemon, for every sandbox; empty: its default
  static Bench make(Optional<String> runtime) throws IOException {
    return make(URI.create(environment("DOCKER_HOST")), runtime);
  }

  static Bench make(URI daemon) throws IOException {
    return make(daemon, Optional.empty());
  }

  private static Bench make(URI daemon, Optional<String> runtime) throws IOException {
    HostPlaces places = places("docker", Path.of(environment("FOREDECK_AGENT_BUNDLE")));
    return new Bench(new DockerConfig(places, daemon, Map.of("base", image()), runtime));
  }

  static String image() {
    String first = environment("FOREDECK_DOCKER_TEMPLATES").split(",")[0];
    return first.substring(first.indexOf('=') + 1);
  }

  static String environment(String name) {
    String value = System.getenv(name);
    assertThat(value)
        .as("%s, without which the Docker driver cannot be tested (./foredeck docker up)", name)
        .isNotBlank();
    return value;
  }

  Bench with(Map<String, String> templates) {
    return new Bench(
        new DockerConfig(
            config.places(), config.daemon(), new LinkedHashMap<>(templates), config.runtime()));
  }

  /// The same place, with that runtime of the daemon for every sandbox.
  Bench on(String runtime) {
    return new Bench(
        new DockerConfig(
            config.places(), config.daemon(), config.templates(), Optional.of(runtime)));
  }

  DockerDriver driver() {
    return driver(Step.Observer.NONE);
  }

  @Override
  public DockerDriver driver(Step.Observer observer) {
    return new DockerDriver(
        config, new SecureRandom(), Clock.systemUTC(), observer, UnaryOperator.identity());
  }

  DockerDriver tampered(UnaryOperator<CreateContainerCmd> tamper) {
    return new DockerDriver(
        config, new SecureRandom(), Clock.systemUTC(), Step.Observer.NONE, tamper);
  }

  /// What the daemon says of itself.
  Daemon.Facts facts() {
    try (Daemon daemon = new Daemon(config.daemon())) {
      return daemon.facts(Deadline.in(Duration.ofSeconds(10)));
    } catch (DriverException e) {
      throw new AssertionError(e);
    }
  }

  @Override
  protected List<String> remainsOfTheRuntime() throws IOException {
    try (DockerClient docker = client()) {
      return docker
          .listContainersCmd()
          .withShowAll(true)
          .withLabelFilter(Map.of("dev.foredeck.deployment", config.deployment()))
          .exec()
          .stream()
          .map(container -> "container " + container.getId())
          .toList();
    }
  }

  /// Docker as anybody else on this host uses it.
  DockerClient client() {
    return OwnDaemon.client(config.daemon());
  }

  /// The host's number of the sandbox's agent.
  long pid(Id sandbox) throws IOException {
    return Records.readProcess(config.places().folder(sandbox).process()).orElseThrow().pid();
  }

  static LaunchSpec spec(Id id) {
    return spec(id, Isolation.STANDARD);
  }

  static LaunchSpec spec(Id id, Isolation isolation) {
    return new LaunchSpec(
        id,
        id("tenant"),
        "base",
        new Resources(1000, 192L << 20, 16L << 20, 96),
        Boundary.NONE.with(isolation),
        TOKEN,
        Map.of("team", "growth"),
        Instant.EPOCH);
  }
}
