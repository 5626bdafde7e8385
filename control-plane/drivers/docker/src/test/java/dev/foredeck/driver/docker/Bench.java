package dev.foredeck.driver.docker;

import static org.assertj.core.api.Assertions.assertThat;

import com.github.dockerjava.api.command.CreateContainerCmd;
import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.HostPlaces;
import dev.foredeck.driver.host.Trees;
import dev.foredeck.policy.Boundary;
import java.io.IOException;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.UnaryOperator;

/// A place of its own for a test's drivers: data, sockets and user ranges that no other test sees.
/// The daemon is the one that `DOCKER_HOST` names, the image the first of
/// `FOREDECK_DOCKER_TEMPLATES` (it needs sh, bash and python3), the agent is in
/// `FOREDECK_AGENT_BUNDLE`: what is missing is a failure and nothing is skipped.
final class Bench implements AutoCloseable {
  private static final AtomicInteger COUNT = new AtomicInteger();
  static final String TOKEN = "the-token-of-this-sandbox";

  final DockerConfig config;

  private Bench(DockerConfig config) {
    this.config = config;
  }

  static Bench make() throws IOException {
    return make(URI.create(environment("DOCKER_HOST")));
  }

  static Bench make(URI daemon) throws IOException {
    Path data = Files.createTempDirectory("foredeck-docker");
    Path run =
        Path.of("/run", "fdd-" + ProcessHandle.current().pid() + "-" + COUNT.incrementAndGet());
    HostPlaces places =
        new HostPlaces(
            data,
            run,
            Path.of("/run/foredeck-uids"),
            Path.of(environment("FOREDECK_AGENT_BUNDLE")),
            16,
            1L << 30);
    return new Bench(new DockerConfig(places, daemon, Map.of("base", image()), Optional.empty()));
  }

  static String image() {
    String first = environment("FOREDECK_DOCKER_TEMPLATES").split(",")[0];
    return first.substring(first.indexOf('=') + 1);
  }

  private static String environment(String name) {
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

  DockerDriver driver() {
    return driver(Step.Observer.NONE);
  }

  DockerDriver driver(Step.Observer observer) {
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

  static Id id(String name) {
    return new Id(("sbx" + name + "0000000000000000").substring(0, 20));
  }

  static LaunchSpec spec(Id id) {
    return new LaunchSpec(
        id,
        id("tenant"),
        "base",
        new Resources(1000, 192L << 20, 16L << 20, 96),
        Boundary.NONE,
        TOKEN,
        Map.of("team", "growth"),
        Instant.EPOCH);
  }

  @Override
  public void close() throws IOException {
    Trees.delete(config.places().runDir());
    Trees.delete(config.places().dataDir());
  }
}
