package dev.foredeck.driver.host;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.AgentDialogue;
import dev.foredeck.core.driver.Driver;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;

/// A place of its own for a test's drivers: data, sockets and user ranges that no other test sees.
public abstract class HostBench implements AutoCloseable {
  public static final String TOKEN = "the-token-of-this-sandbox";
  protected static final AtomicInteger COUNT = new AtomicInteger();
  private static final Duration TIMEOUT = Duration.ofSeconds(60);

  private final HostPlaces places;

  protected HostBench(HostPlaces places) {
    this.places = places;
  }

  /// @param name of the driver
  protected static HostPlaces places(String name, Path agentBundle) throws IOException {
    return new HostPlaces(
        Files.createTempDirectory("foredeck-" + name),
        // Short: the paths of sockets are.
        Path.of("/run", "fdt-" + ProcessHandle.current().pid() + "-" + COUNT.incrementAndGet()),
        Path.of("/run/foredeck-uids"),
        agentBundle,
        16,
        1L << 30);
  }

  /// A driver over this place.
  ///
  /// @param observer of its steps
  public abstract Driver driver(Step.Observer observer);

  /// What is left of what the driver's runtime has made.
  protected abstract List<String> remainsOfTheRuntime() throws IOException;

  /// What is left of all sandboxes of this place, looked up without the driver's own code.
  public List<String> remains() throws IOException {
    String data = places.dataDir().toString();
    try (Stream<String> mounts = Files.lines(Path.of("/proc/self/mountinfo"));
        Stream<Path> loops = Files.list(Path.of("/sys/block"));
        Stream<Path> slots = Files.list(places.uidSlots());
        Stream<Path> sandboxes = Files.list(places.sandboxes());
        Stream<Path> sockets =
            Files.isDirectory(places.sockets()) ? Files.list(places.sockets()) : Stream.of();
        Stream<ProcessHandle> processes = ProcessHandle.allProcesses()) {
      return Stream.of(
              remainsOfTheRuntime().stream(),
              mounts.filter(line -> line.contains(data)),
              loops
                  .map(loop -> KernelTables.readIfPresent(loop.resolve("loop/backing_file")))
                  .flatMap(Optional::stream)
                  .filter(file -> file.contains(data)),
              slots
                  .filter(slot -> {
                    try {
                      return Files.readSymbolicLink(slot).startsWith(places.runDir());
                    } catch (IOException _) {
                      // Another test's, and just gone.
                      return false;
                    }
                  })
                  .map(Path::toString),
              sandboxes.map(Path::toString),
              sockets.map(Path::toString),
              processes
                  .filter(process ->
                      process.info().commandLine().filter(l -> l.contains(data)).isPresent())
                  .map(process -> "process " + process.pid()))
          .flatMap(all -> all)
          .toList();
    }
  }

  /// A call's id that nobody has used.
  public static String call() {
    return "call%016d".formatted(COUNT.incrementAndGet());
  }

  /// Fails unless programs run in the sandbox.
  public static void runs(Driver driver, Id sandbox) throws Exception {
    assertThat(
            AgentDialogue.run(driver.connect(sandbox, TOKEN, TIMEOUT), call(), "echo", "up").text())
        .isEqualTo("up\n");
  }

  public static Id id(String name) {
    return new Id(("sbx" + name + "0000000000000000").substring(0, 20));
  }

  /// A folder that everybody may write to, on a file system without a limit.
  public static Path unlimited() {
    Path folder = Path.of("/tmp", "foredeck-unlimited-" + ProcessHandle.current().pid());
    try {
      Files.createDirectories(folder);
      Files.setAttribute(folder, "unix:mode", 01777);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    return folder;
  }

  @Override
  public void close() throws IOException {
    Trees.delete(places.runDir());
    Trees.delete(places.dataDir());
  }
}
