package dev.foredeck.systemtests;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;

/// A control plane in a process of its own, with a data folder that outlives it. Ended by its
/// process handle only.
final class Plane implements AutoCloseable {
  /// What [#real] starts.
  static final String DRIVER = System.getProperty("foredeck.driver", "local");

  private static final AtomicInteger COUNT = new AtomicInteger();
  private static final long READY_SECONDS = 120;

  private final Path data;
  private final Path log;
  private final String driver;
  private final int port;
  private final Map<String, String> environment;
  private @Nullable Process process;
  private String key = "";

  private Plane(Path data, Path log, String driver, int port, Map<String, String> environment) {
    this.data = data;
    this.log = log;
    this.driver = driver;
    this.port = port;
    this.environment = environment;
  }

  /// Starts one on a folder of its own; `close` removes both.
  static Plane start(String driver, Map<String, String> environment) {
    try {
      // Sandboxes' users and the database's must be able to pass through it.
      Path data = Files.createTempDirectory(Path.of("/var/tmp"), "foredeck-test-");
      Files.setPosixFilePermissions(data, PosixFilePermissions.fromString("rwxr-xr-x"));
      Plane plane =
          new Plane(data, data.resolve("test.log"), driver, freePort(), withoutPools(environment));
      plane.start();
      return plane;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /// Without warm pools, unless the test names some: most tests count what there is.
  private static Map<String, String> withoutPools(Map<String, String> environment) {
    Map<String, String> with = new TreeMap<>(environment);
    with.putIfAbsent("FOREDECK_POOLS", "off");
    return with;
  }

  /// One with real sandboxes, by the driver that `-Dforedeck.driver` names (`local` unless it
  /// does). For `docker` the daemon is that of `DOCKER_HOST` and the images are those of
  /// `FOREDECK_DOCKER_TEMPLATES`. For `kubernetes` the cluster is that of `KUBECONFIG`, the images
  /// are those of `FOREDECK_TEST_*_IMAGE`, and each plane has namespaces and a gateway of its own.
  static Plane real() {
    return real(Map.of());
  }

  /// @param more of its environment
  static Plane real(Map<String, String> more) {
    Map<String, String> environment = new TreeMap<>(more);
    switch (DRIVER) {
      case "docker" -> {
        for (String name : List.of("DOCKER_HOST", "FOREDECK_DOCKER_TEMPLATES")) {
          environment.put(name, required(name));
        }
      }
      case "kubernetes" -> environment.putAll(inCluster());
      default -> {}
    }
    return start(DRIVER, environment);
  }

  private static Map<String, String> inCluster() {
    String _ = required("KUBECONFIG");
    String namespace =
        "foredeck-plane-" + ProcessHandle.current().pid() + "-" + COUNT.incrementAndGet();
    return Map.of(
        "FOREDECK_KUBERNETES_INSTALL",
        "temporary",
        "FOREDECK_KUBERNETES_NAMESPACE",
        namespace,
        "FOREDECK_KUBERNETES_GATEWAY_NAMESPACE",
        namespace + "-gateway",
        "FOREDECK_KUBERNETES_ADMIT",
        Objects.requireNonNullElse(System.getenv("FOREDECK_TEST_ADMIT"), "10.244.0.1"),
        "FOREDECK_KUBERNETES_TEMPLATES",
        templates().toString());
  }

  /// The workspace in memory: on the node's disk its limit is one that the kubelet looks at once a
  /// minute.
  private static Path templates() {
    try {
      Path file = Files.createTempFile("foredeck-templates-", ".yaml");
      file.toFile().deleteOnExit();
      return Files.writeString(
          file,
          """
          agentImage: %s
          firewallImage: %s
          gatewayImage: %s
          templates:
            base: {image: "%s", workspace: memory}
          """
              .formatted(
                  required("FOREDECK_TEST_AGENT_IMAGE"),
                  required("FOREDECK_TEST_FIREWALL_IMAGE"),
                  required("FOREDECK_TEST_GATEWAY_IMAGE"),
                  required("FOREDECK_TEST_BASE_IMAGE")));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static String required(String variable) {
    String value = System.getenv(variable);
    if (value == null || value.isBlank()) {
      throw new IllegalStateException(
          variable + " is not set: ./foredeck test sets it, CONTRIBUTING.md says how to by hand");
    }
    return value;
  }

  /// Where a test's own web site has to listen.
  static InetAddress hostSeenByTheGateway() {
    return DRIVER.equals("kubernetes")
        ? InetAddress.ofLiteral(
            Objects.requireNonNullElse(System.getenv("FOREDECK_TEST_HOST_ADDRESS"), "10.99.0.1"))
        : InetAddress.getLoopbackAddress();
  }

  /// Where its sandboxes are in the cluster; empty where there is none.
  String namespace() {
    return environment.getOrDefault("FOREDECK_KUBERNETES_NAMESPACE", "");
  }

  static int freePort() {
    try (ServerSocket socket = new ServerSocket(0)) {
      return socket.getLocalPort();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /// Starts one on a folder that the test made, where nothing runs yet; `close` removes its content
  /// and the folder.
  ///
  /// @param log outside of the folder, for tests that leave no room in it
  static Plane startIn(Path data, Path log, String driver) {
    Plane plane = new Plane(data, log, driver, freePort(), withoutPools(Map.of()));
    plane.start();
    return plane;
  }

  /// How a start-up ended that was expected to be refused.
  record Refusal(int exitCode, String said) {}

  /// Starts a process that must end by itself instead of serving.
  ///
  /// @param environment beside, or instead of, what this one has
  static Refusal refused(Path data, Map<String, String> environment) {
    Map<String, String> with = new TreeMap<>(environment);
    with.putIfAbsent("FOREDECK_LISTEN", "127.0.0.1:" + freePort());
    with.putIfAbsent("FOREDECK_DRIVER", "simulated");
    with.putIfAbsent("FOREDECK_DATA", data.toString());
    Path said = null;
    try {
      said = Files.createTempFile("foredeck-refused-", ".log");
      Process process =
          builder(with).redirectErrorStream(true).redirectOutput(said.toFile()).start();
      if (!process.waitFor(READY_SECONDS, TimeUnit.SECONDS)) {
        process.destroyForcibly().waitFor();
        throw new IllegalStateException("it did not end by itself: " + Files.readString(said));
      }
      return new Refusal(process.exitValue(), Files.readString(said));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException(e);
    } finally {
      if (said != null) {
        said.toFile().delete();
      }
    }
  }

  /// Starts a process on a folder, and sends it SIGTERM while it starts.
  ///
  /// @param afterMillis from when it has taken the folder
  static Refusal terminated(Path data, long afterMillis) {
    Map<String, String> with = new TreeMap<>();
    with.put("FOREDECK_LISTEN", "127.0.0.1:" + freePort());
    with.put("FOREDECK_DRIVER", "simulated");
    with.put("FOREDECK_DATA", data.toString());
    Path said = null;
    try {
      said = Files.createTempFile("foredeck-terminated-", ".log");
      Process process =
          builder(with).redirectErrorStream(true).redirectOutput(said.toFile()).start();
      long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(READY_SECONDS);
      while (!Files.exists(data.resolve("lock")) && System.nanoTime() < until) {
        Client.sleep(5);
      }
      Client.sleep(afterMillis);
      process.destroy();
      if (!process.waitFor(READY_SECONDS, TimeUnit.SECONDS)) {
        process.destroyForcibly().waitFor();
        throw new IllegalStateException("it did not end: " + Files.readString(said));
      }
      return new Refusal(process.exitValue(), Files.readString(said));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException(e);
    } finally {
      if (said != null) {
        said.toFile().delete();
      }
    }
  }

  private static ProcessBuilder builder(Map<String, String> environment) {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(
        List.of(
            "--enable-native-access=ALL-UNNAMED",
            "--sun-misc-unsafe-memory-access=allow",
            "-XX:+UseSerialGC",
            "-Xmx512m",
            "-cp",
            System.getProperty("java.class.path"),
            "dev.foredeck.app.Main",
            "up"));
    ProcessBuilder builder = new ProcessBuilder(command);
    builder
        .environment()
        .keySet()
        .removeIf(name -> name.startsWith("FOREDECK_") && !name.equals("FOREDECK_AGENT_BUNDLE"));
    builder.environment().putAll(environment);
    return builder;
  }

  /// Starts the process again on the same folder and port, after [#kill] or [#stop].
  void start() {
    ProcessBuilder builder = builder(environment);
    builder.environment().put("FOREDECK_LISTEN", "127.0.0.1:" + port);
    builder.environment().put("FOREDECK_DATA", data.toString());
    builder.environment().put("FOREDECK_DRIVER", driver);
    builder.redirectError(ProcessBuilder.Redirect.appendTo(log().toFile()));
    try {
      Process started = builder.start();
      process = started;
      BufferedReader out = started.inputReader();
      Thread timer =
          Thread.ofVirtual()
              .start(() -> {
                try {
                  Thread.sleep(TimeUnit.SECONDS.toMillis(READY_SECONDS));
                  started.destroyForcibly();
                } catch (InterruptedException _) {
                  // It became ready in time.
                }
              });
      String line = out.readLine();
      timer.interrupt();
      if (line == null || !line.startsWith("foredeck ready ")) {
        throw new IllegalStateException(
            "the control plane did not become ready: " + line + "\n" + logTail());
      }
      key = Files.readString(data.resolve("admin.key")).strip();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  String url() {
    return "http://127.0.0.1:" + port;
  }

  int port() {
    return port;
  }

  String key() {
    return key;
  }

  Path data() {
    return data;
  }

  Path log() {
    return log;
  }

  long pid() {
    return running().pid();
  }

  private Process running() {
    if (process == null) {
      throw new IllegalStateException("the control plane does not run");
    }
    return process;
  }

  String logTail() {
    try {
      List<String> lines = Files.readAllLines(log());
      return String.join("\n", lines.subList(Math.max(0, lines.size() - 60), lines.size()));
    } catch (IOException e) {
      return "(no log: " + e + ")";
    }
  }

  /// SIGKILL.
  void kill() {
    try {
      running().destroyForcibly().waitFor();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /// SIGTERM, and its exit code.
  int stop() {
    Process stopping = running();
    stopping.destroy();
    try {
      if (!stopping.waitFor(60, TimeUnit.SECONDS)) {
        stopping.destroyForcibly().waitFor();
        throw new IllegalStateException("the control plane did not drain in 60 s\n" + logTail());
      }
      return stopping.exitValue();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException(e);
    }
  }

  boolean alive() {
    return process != null && process.isAlive();
  }

  /// Destroys what lives, ends the process, removes the folder.
  @Override
  public void close() {
    if (!alive()) {
      start();
    }
    Client client = new Client(this);
    client.destroyAll();
    stop();
    try {
      removeTree(data);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  static void removeTree(Path root) throws IOException {
    Files.walkFileTree(
        root,
        new SimpleFileVisitor<>() {
          @Override
          public FileVisitResult visitFile(Path file, BasicFileAttributes attributes)
              throws IOException {
            Files.delete(file);
            return FileVisitResult.CONTINUE;
          }

          @Override
          public FileVisitResult postVisitDirectory(Path folder, @Nullable IOException e)
              throws IOException {
            Files.delete(folder);
            return FileVisitResult.CONTINUE;
          }
        });
  }
}
