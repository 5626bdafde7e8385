package dev.foredeck.driver.docker;

import static org.assertj.core.api.Assertions.assertThat;

import com.github.dockerjava.api.DockerClient;
import com.github.dockerjava.api.command.CreateContainerCmd;
import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.AgentDialogue;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.HostPlaces;
import dev.foredeck.driver.host.KernelTables;
import dev.foredeck.driver.host.Records;
import dev.foredeck.driver.host.Trees;
import dev.foredeck.policy.Boundary;
import dev.foredeck.policy.Isolation;
import java.io.IOException;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;

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

  /// @param runtime of the daemon, for every sandbox; empty: its default
  static Bench make(Optional<String> runtime) throws IOException {
    return make(URI.create(environment("DOCKER_HOST")), runtime);
  }

  static Bench make(URI daemon) throws IOException {
    return make(daemon, Optional.empty());
  }

  private static Bench make(URI daemon, Optional<String> runtime) throws IOException {
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

  /// What is left of all sandboxes of this place, looked up without the driver's own code.
  List<String> remains() throws IOException {
    String data = config.places().dataDir().toString();
    try (DockerClient docker = client();
        Stream<String> mounts = Files.lines(Path.of("/proc/self/mountinfo"));
        Stream<Path> loops = Files.list(Path.of("/sys/block"));
        Stream<Path> slots = Files.list(config.places().uidSlots());
        Stream<Path> sandboxes = Files.list(config.places().sandboxes());
        Stream<Path> sockets =
            Files.isDirectory(config.places().sockets())
                ? Files.list(config.places().sockets())
                : Stream.of()) {
      return Stream.of(
              docker
                  .listContainersCmd()
                  .withShowAll(true)
                  .withLabelFilter(Map.of("dev.foredeck.deployment", config.deployment()))
                  .exec()
                  .stream()
                  .map(container -> "container " + container.getId()),
              mounts.filter(line -> line.contains(data)),
              loops
                  .map(loop -> KernelTables.readIfPresent(loop.resolve("loop/backing_file")))
                  .flatMap(Optional::stream)
                  .filter(file -> file.contains(data)),
              slots
                  .filter(slot -> {
                    try {
                      return Files.readSymbolicLink(slot).startsWith(config.places().runDir());
                    } catch (IOException _) {
                      // Another test's, and just gone.
                      return false;
                    }
                  })
                  .map(Path::toString),
              sandboxes.map(Path::toString),
              sockets.map(Path::toString))
          .flatMap(all -> all)
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

  static String call() {
    return "call%016d".formatted(COUNT.incrementAndGet());
  }

  static void runs(DockerDriver driver, Id sandbox) throws Exception {
    assertThat(
            AgentDialogue.run(
                    driver.connect(sandbox, TOKEN, Duration.ofSeconds(60)), call(), "echo", "up")
                .text())
        .isEqualTo("up\n");
  }

  static Id id(String name) {
    return new Id(("sbx" + name + "0000000000000000").substring(0, 20));
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
        new Boundary(
            List.of(),
            List.of(),
            OptionalLong.empty(),
            OptionalLong.empty(),
            OptionalInt.empty(),
            OptionalInt.empty(),
            Optional.empty(),
            isolation),
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
