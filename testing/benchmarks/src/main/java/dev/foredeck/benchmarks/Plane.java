package dev.foredeck.benchmarks;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/// A control plane of `./foredeck up` on loopback, with a data folder of its own that goes with it.
final class Plane implements AutoCloseable {
  private static final String READY = "foredeck ready ";
  private static final int START_SECONDS = 300;
  private static final int END_SECONDS = 120;

  final Path data;
  final Api api;

  /// From exec to the line that says ready.
  final double startSeconds;

  private final Process process;

  /// @param settings variables beside those that every benchmark sets
  Plane(Map<String, String> settings) throws IOException {
    data = Files.createTempDirectory(Path.of("/var/tmp"), "foredeck-bench-");
    Files.setPosixFilePermissions(data, PosixFilePermissions.fromString("rwxr-xr-x"));
    int port;
    try (ServerSocket socket = new ServerSocket(0)) {
      port = socket.getLocalPort();
    }
    ProcessBuilder builder = new ProcessBuilder(System.getenv("FOREDECK_UP_COMMAND").split(" "));
    builder.environment().remove("FOREDECK_UP_COMMAND");
    // Names of images for tests: no settings of a control plane, which refuses what it does not
    // know.
    builder.environment().keySet().removeIf(name -> name.startsWith("FOREDECK_TEST_"));
    builder.environment().put("FOREDECK_LISTEN", "127.0.0.1:" + port);
    builder.environment().put("FOREDECK_DATA", data.toString());
    builder.environment().put("FOREDECK_LOG", "warn");
    builder.environment().putAll(settings);
    builder.redirectError(ProcessBuilder.Redirect.INHERIT);
    long began = System.nanoTime();
    process = builder.start();
    Thread watchdog = Thread.ofVirtual().start(this::giveUp);
    try {
      BufferedReader out =
          new BufferedReader(
              new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
      String line = out.readLine();
      watchdog.interrupt();
      if (line == null || !line.startsWith(READY)) {
        throw new IOException("the control plane did not become ready: " + line);
      }
      startSeconds = (System.nanoTime() - began) / 1e9;
      api =
          new Api(
              line.substring(READY.length()), Files.readString(data.resolve("admin.key")).strip());
    } catch (IOException | RuntimeException e) {
      close();
      throw e;
    }
  }

  /// Ends one that says nothing: the reader of its output then sees the end.
  private void giveUp() {
    try {
      Thread.sleep(Duration.ofSeconds(START_SECONDS));
      process.destroy();
    } catch (InterruptedException _) {
      // It has said something.
    }
  }

  @Override
  public void close() throws IOException {
    process.destroy();
    try {
      if (!process.waitFor(END_SECONDS, TimeUnit.SECONDS)) {
        process.destroyForcibly().waitFor();
      }
    } catch (InterruptedException _) {
      process.destroyForcibly();
      Thread.currentThread().interrupt();
    }
    Host.removeTree(data);
  }
}
