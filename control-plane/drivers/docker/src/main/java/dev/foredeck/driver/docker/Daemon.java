package dev.foredeck.driver.docker;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.github.dockerjava.api.DockerClient;
import com.github.dockerjava.api.command.InspectContainerResponse;
import com.github.dockerjava.api.exception.ConflictException;
import com.github.dockerjava.api.exception.DockerException;
import com.github.dockerjava.api.exception.NotFoundException;
import com.github.dockerjava.api.model.Container;
import com.github.dockerjava.api.model.Info;
import com.github.dockerjava.core.DefaultDockerClientConfig;
import com.github.dockerjava.core.DockerClientImpl;
import com.github.dockerjava.zerodep.ZerodepDockerHttpClient;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.host.Command;
import dev.foredeck.driver.host.Deadline;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Function;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/// The Docker daemon's API with a deadline on every call and the driver's kinds of errors. Holds no
/// state but a pool of connections.
final class Daemon implements AutoCloseable {
  /// No call that the driver makes needs longer; one that does hangs.
  private static final Duration HARD_LIMIT = Duration.ofSeconds(60);

  private static final Duration CONNECT = Duration.ofSeconds(5);
  private static final ObjectMapper JSON = new ObjectMapper();

  /// With user namespaces the daemon keeps its things in a folder named after its users:
  /// `/var/lib/docker/165536.165536`.
  private static final Pattern REMAPPED_ROOT = Pattern.compile("(\\d+)\\.(\\d+)");

  private final URI uri;
  private final DockerClient client;

  Daemon(URI uri) {
    this.uri = uri;
    var config =
        DefaultDockerClientConfig.createDefaultConfigBuilder()
            .withDockerHost(uri.toString())
            .withDockerTlsVerify(false)
            .build();
    this.client =
        DockerClientImpl.getInstance(
            config,
            new ZerodepDockerHttpClient.Builder()
                .dockerHost(uri)
                .connectionTimeout(CONNECT)
                .build());
  }

  /// What the driver has to know of a daemon.
  ///
  /// @param runtimes that containers can ask for, as `runc`
  /// @param firstUid the host's number of a container's user 0 where the daemon uses user
  ///   namespaces
  /// @param liveRestore whether containers outlive the daemon
  record Facts(
      String version,
      String operatingSystem,
      Set<String> runtimes,
      OptionalInt firstUid,
      boolean rootless,
      boolean limitsSwap,
      boolean liveRestore) {
    Facts {
      runtimes = Set.copyOf(runtimes);
    }
  }

  /// One call.
  ///
  /// @param doing for a person, as `start the container`
  /// @throws DriverException.Failed when the daemon is away, says no, or does not answer in time
  <T extends @Nullable Object> T call(
      Deadline deadline, String doing, Function<DockerClient, T> call)
      throws DriverException.Failed {
    FutureTask<T> task = new FutureTask<>(() -> call.apply(client));
    Thread thread = Thread.ofVirtual().name("docker: " + doing).start(task);
    try {
      Deadline own = deadline.atMost(HARD_LIMIT);
      return task.get(Math.max(1, own.remainingNanos()), TimeUnit.NANOSECONDS);
    } catch (TimeoutException e) {
      throw new DriverException.Failed(
          "cannot " + doing + ": the Docker daemon at " + uri + " did not answer in time", e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new DriverException.Failed("interrupted: cannot " + doing, e);
    } catch (ExecutionException e) {
      throw failed(doing, e.getCause());
    } finally {
      // Closes the connection of a call that is still under way.
      thread.interrupt();
    }
  }

  private DriverException.Failed failed(String doing, @Nullable Throwable cause) {
    Throwable why = cause == null ? new IllegalStateException() : cause;
    if (why instanceof DockerException said) {
      return new DriverException.Failed("cannot " + doing + ": " + message(said), said);
    }
    Throwable root = why;
    while (root.getCause() != null) {
      root = root.getCause();
    }
    return new DriverException.Failed(
        "cannot "
            + doing
            + ": the Docker daemon at "
            + uri
            + " does not answer ("
            + Command.lastLine(Objects.requireNonNullElse(root.getMessage(), root.toString()))
            + ")",
        why);
  }

  /// What the daemon said, without the library's wrapping: `Status 404: {"message":"..."}`.
  private static String message(DockerException said) {
    String text = Objects.requireNonNullElse(said.getMessage(), "no reason given");
    int brace = text.indexOf('{');
    if (brace >= 0) {
      try {
        JsonNode message = JSON.readTree(text.substring(brace)).path("message");
        if (message.isTextual()) {
          text = message.asText();
        }
      } catch (IOException _) {
        // Not the daemon's usual form: as it is.
      }
    }
    return Command.lastLine(text);
  }

  private static boolean isNotFound(DriverException.Failed failed) {
    return failed.getCause() instanceof NotFoundException;
  }

  static boolean isConflict(DriverException.Failed failed) {
    return failed.getCause() instanceof ConflictException;
  }

  /// The same, where "there is none" is an answer.
  <T> Optional<T> find(Deadline deadline, String doing, Function<DockerClient, T> call)
      throws DriverException.Failed {
    try {
      return Optional.of(call(deadline, doing, call));
    } catch (DriverException.Failed e) {
      if (isNotFound(e)) {
        return Optional.empty();
      }
      throw e;
    }
  }

  Facts facts(Deadline deadline) throws DriverException.Failed {
    Info info = call(deadline, "ask the Docker daemon what it is", c -> c.infoCmd().exec());
    List<String> security = Objects.requireNonNullElse(info.getSecurityOptions(), List.of());
    boolean remapped = security.stream().anyMatch(option -> option.startsWith("name=userns"));
    OptionalInt firstUid = OptionalInt.empty();
    if (remapped) {
      firstUid = OptionalInt.of(firstUid(Objects.requireNonNullElse(info.getDockerRootDir(), "")));
    }
    return new Facts(
        Objects.requireNonNullElse(info.getServerVersion(), "?"),
        Objects.requireNonNullElse(info.getOperatingSystem(), "?"),
        info.getRuntimes() == null ? Set.of() : info.getRuntimes().keySet(),
        firstUid,
        security.stream().anyMatch(option -> option.startsWith("name=rootless")),
        Boolean.TRUE.equals(info.getSwapLimit()),
        Boolean.TRUE.equals(info.getRawValues().get("LiveRestoreEnabled")));
  }

  private static int firstUid(String root) throws DriverException.Failed {
    Matcher name = REMAPPED_ROOT.matcher(String.valueOf(Path.of(root).getFileName()));
    if (!name.matches() || !name.group(1).equals(name.group(2))) {
      throw new DriverException.Failed(
          "the Docker daemon uses user namespaces, and its folder "
              + root
              + " does not say which users");
    }
    return Integer.parseInt(name.group(1));
  }

  Optional<InspectContainerResponse> container(Deadline deadline, String name)
      throws DriverException.Failed {
    return find(deadline, "look at container " + name, c -> c.inspectContainerCmd(name).exec());
  }

  /// All containers with this label, whether they run or not.
  List<Container> containers(Deadline deadline, String label, String value)
      throws DriverException.Failed {
    return call(
        deadline,
        "list the containers",
        c -> c.listContainersCmd().withShowAll(true).withLabelFilter(Map.of(label, value)).exec());
  }

  /// For the stream of events, which ends when it ends.
  DockerClient client() {
    return client;
  }

  @Override
  public void close() {
    try {
      client.close();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
