package dev.foredeck.driver.docker;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.github.dockerjava.api.DockerClient;
import com.github.dockerjava.core.DefaultDockerClientConfig;
import com.github.dockerjava.core.DockerClientImpl;
import com.github.dockerjava.zerodep.ZerodepDockerHttpClient;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.Disk;
import dev.foredeck.driver.host.Folder;
import dev.foredeck.driver.host.Trees;
import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/// A `dockerd` of the test's own, which it may stop and kill, with a `containerd` of its own that
/// outlives it, as on every host. It has no network, touches no firewall, and keeps containers
/// while it is away (live-restore). Its image is the one that the other tests use.
final class OwnDaemon {
  private static final Duration SOON = Duration.ofSeconds(60);

  private final Path folder;
  private final Process containerd;
  private @Nullable Process dockerd;

  /// What a daemon runs containers with, beside its own `runc`.
  ///
  /// @param path of a program, or its name
  record OciRuntime(String path, List<String> runtimeArgs) {
    OciRuntime {
      runtimeArgs = List.copyOf(runtimeArgs);
    }
  }

  private OwnDaemon(Path folder, Map<String, OciRuntime> runtimes) throws Exception {
    this.folder = folder;
    Files.writeString(
        folder.resolve("daemon.json"),
        new ObjectMapper().writeValueAsString(Map.of("runtimes", runtimes)));
    Files.writeString(
        folder.resolve("containerd.toml"),
        """
        version = 2
        root = '%1$s/containerd'
        state = '%1$s/state'
        oom_score = 0
        disabled_plugins = ['io.containerd.grpc.v1.cri']
        [grpc]
        address = '%1$s/containerd.sock'
        [plugins.'io.containerd.internal.v1.opt']
        path = '%1$s/opt'
        """
            .formatted(folder));
    containerd = program("containerd", "--config", folder.resolve("containerd.toml").toString());
    await("containerd listens", () -> Files.exists(folder.resolve("containerd.sock")));
  }

  /// Starts it and gives it the image of [Bench#image].
  static OwnDaemon start(Map<String, OciRuntime> runtimes) throws Exception {
    OwnDaemon daemon =
        new OwnDaemon(Files.createTempDirectory(Path.of("/var/tmp"), "fdd"), runtimes);
    daemon.up();
    try (DockerClient from = client(URI.create(System.getenv("DOCKER_HOST")));
        DockerClient to = client(daemon.uri());
        InputStream image = from.saveImageCmd(Bench.image()).exec()) {
      to.loadImageCmd(image).exec();
    }
    return daemon;
  }

  URI uri() {
    return URI.create("unix://" + folder.resolve("docker.sock"));
  }

  static DockerClient client(URI daemon) {
    return DockerClientImpl.getInstance(
        DefaultDockerClientConfig.createDefaultConfigBuilder()
            .withDockerHost(daemon.toString())
            .withDockerTlsVerify(false)
            .build(),
        new ZerodepDockerHttpClient.Builder().dockerHost(daemon).build());
  }

  void up() throws Exception {
    // A dockerd that was killed leaves its pid file, and may find another process at that number.
    Files.deleteIfExists(folder.resolve("docker.pid"));
    dockerd =
        program(
            "dockerd",
            "--config-file=" + folder.resolve("daemon.json"),
            "--data-root=" + folder.resolve("data"),
            "--exec-root=" + folder.resolve("exec"),
            "--pidfile=" + folder.resolve("docker.pid"),
            "--containerd=" + folder.resolve("containerd.sock"),
            "--host=" + uri(),
            "--cgroup-parent=/foredeck-own-" + ProcessHandle.current().pid(),
            "--live-restore",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--oom-score-adjust=0");
    await(
        "dockerd answers",
        () -> {
          try (DockerClient client = client(uri())) {
            client.pingCmd().exec();
            return true;
          } catch (RuntimeException | IOException _) {
            return false;
          }
        });
  }

  /// As its own restart does it.
  void stop() throws InterruptedException {
    end(ProcessHandle::destroy);
  }

  void kill() throws InterruptedException {
    end(ProcessHandle::destroyForcibly);
  }

  private void end(java.util.function.Function<ProcessHandle, Boolean> signal)
      throws InterruptedException {
    Process process = dockerd;
    if (process != null) {
      assertThat(signal.apply(process.toHandle())).isTrue();
      assertThat(process.waitFor(SOON.toSeconds(), TimeUnit.SECONDS)).isTrue();
      dockerd = null;
    }
  }

  private Process program(String... argv) throws IOException {
    return new ProcessBuilder(argv)
        .redirectErrorStream(true)
        .redirectOutput(ProcessBuilder.Redirect.appendTo(folder.resolve(argv[0] + ".log").toFile()))
        .start();
  }

  /// A condition that becomes true, or the test fails.
  static void await(String what, java.util.concurrent.Callable<Boolean> condition)
      throws Exception {
    long end = System.nanoTime() + SOON.toNanos();
    while (!condition.call()) {
      assertThat(System.nanoTime()).as("%s within %s", what, SOON).isLessThan(end);
      Thread.sleep(20);
    }
  }

  /// Ends it and leaves nothing.
  void remove() throws Exception {
    stop();
    containerd.destroy();
    if (!containerd.waitFor(SOON.toSeconds(), TimeUnit.SECONDS)) {
      containerd.destroyForcibly().waitFor();
    }
    Disk.unmount(new Folder(folder), Deadline.in(SOON));
    Trees.delete(folder);
    try (var hierarchies = Files.list(Path.of("/sys/fs/cgroup"))) {
      String name = "foredeck-own-" + ProcessHandle.current().pid();
      for (Path cgroup :
          List.of(
              hierarchies
                  .map(hierarchy -> hierarchy.resolve(name))
                  .filter(Files::isDirectory)
                  .toArray(Path[]::new))) {
        Files.deleteIfExists(cgroup);
      }
    }
    Files.deleteIfExists(
        Path.of("/sys/fs/cgroup", "foredeck-own-" + ProcessHandle.current().pid()));
  }
}
