package dev.foredeck.cli;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.OptionalInt;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Consumer;

/// A control plane as a child process, by the launcher's contract: it says `foredeck ready <url>`
/// when it serves, drains on SIGTERM and ends with 0.
///
/// Threading: one thread starts and awaits it; any may stop it.
final class ControlPlaneProcess {
  private static final String READY = "foredeck ready ";
  private static final int KEPT_LINES = 40;
  private static final int KEPT_LINE_CHARS = 400;
  private static final Set<String> KEPT =
      Set.of(
          "FOREDECK_AGENT_BUNDLE",
          "FOREDECK_DOCKER_HOST",
          "FOREDECK_DOCKER_RUNTIME",
          "FOREDECK_DOCKER_TEMPLATES",
          "FOREDECK_KUBERNETES_ADMIT",
          "FOREDECK_KUBERNETES_ISOLATION",
          "FOREDECK_KUBERNETES_TEMPLATES",
          "FOREDECK_LOG");
  private static final Duration REMINDER = Duration.ofSeconds(10);
  private static final Path SETSID = Path.of("/usr/bin/setsid");

  private final Process process;
  private final CompletableFuture<URI> ready = new CompletableFuture<>();
  private final Deque<String> lastLines = new ArrayDeque<>();
  private final List<Thread> readers = new ArrayList<>();

  private ControlPlaneProcess(Process process) {
    this.process = process;
    readers.add(Thread.ofVirtual().start(() -> read(process.getInputStream(), true)));
    readers.add(Thread.ofVirtual().start(() -> read(process.getErrorStream(), false)));
  }

  /// @param command which starts it
  /// @param settings in its environment, instead of any of ours: it refuses keys that it does not
  ///   know, and a database of the caller's is none of its business
  static ControlPlaneProcess start(List<String> command, Map<String, String> settings) {
    List<String> line = new ArrayList<>();
    if (Files.isExecutable(SETSID)) {
      // A session of its own: Ctrl-C reaches us alone, and we destroy the sandbox before we stop
      // what could destroy it.
      line.add(SETSID.toString());
    }
    line.addAll(command);
    ProcessBuilder builder = new ProcessBuilder(line);
    builder.redirectInput(ProcessBuilder.Redirect.from(Path.of("/dev/null").toFile()));
    Map<String, String> environment = builder.environment();
    environment.keySet().removeIf(name -> name.startsWith("FOREDECK_") && !KEPT.contains(name));
    environment.putAll(settings);
    try {
      return new ControlPlaneProcess(builder.start());
    } catch (IOException e) {
      throw new CommandException(
          ExitCode.CANNOT, "the control plane cannot be started: " + e.getMessage(), e);
    }
  }

  /// @param waiting is told every few seconds how long it takes already
  /// @return where it serves
  /// @throws CommandException with the last lines that it wrote, where it ends or stays silent
  URI awaitReady(Duration atMost, Consumer<Duration> waiting) throws InterruptedException {
    Duration waited = Duration.ZERO;
    while (true) {
      try {
        return ready.get(REMINDER.toMillis(), TimeUnit.MILLISECONDS);
      } catch (ExecutionException e) {
        throw new CommandException(
            ExitCode.CANNOT, "the control plane " + end() + " before it was ready" + said(), e);
      } catch (TimeoutException e) {
        waited = waited.plus(REMINDER);
        if (waited.compareTo(atMost) >= 0) {
          throw new CommandException(
              ExitCode.CANNOT,
              "the control plane was not ready after " + waited.toSeconds() + " s" + said(),
              e);
        }
        waiting.accept(waited);
      }
    }
  }

  private String end() throws InterruptedException {
    boolean ended = process.waitFor(5, TimeUnit.SECONDS);
    for (Thread reader : readers) {
      boolean _ = reader.join(Duration.ofSeconds(1));
    }
    return ended ? "ended with " + process.exitValue() : "closed its output";
  }

  /// SIGTERM, and SIGKILL where that does not end it in time.
  ///
  /// @return its exit code; empty where it had to be killed
  OptionalInt stop(Duration atMost) throws InterruptedException {
    List<ProcessHandle> below = process.descendants().toList();
    process.destroy();
    if (process.waitFor(atMost.toMillis(), TimeUnit.MILLISECONDS)) {
      return OptionalInt.of(process.exitValue());
    }
    process.destroyForcibly();
    below.forEach(ProcessHandle::destroyForcibly);
    process.waitFor(5, TimeUnit.SECONDS);
    return OptionalInt.empty();
  }

  /// What it wrote last, indented; empty where it wrote nothing.
  String said() {
    synchronized (lastLines) {
      StringBuilder text = new StringBuilder();
      for (String line : lastLines) {
        text.append("\n  | ").append(line);
      }
      return text.toString();
    }
  }

  private void read(InputStream stream, boolean announces) {
    try (BufferedReader lines =
        new BufferedReader(new InputStreamReader(stream, StandardCharsets.UTF_8))) {
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        if (announces && line.startsWith(READY)) {
          ready.complete(URI.create(line.substring(READY.length()).strip()));
        } else {
          keep(line);
        }
      }
    } catch (IOException | IllegalArgumentException e) {
      keep(String.valueOf(e.getMessage()));
    } finally {
      if (announces) {
        ready.completeExceptionally(new IOException("its output ended"));
      }
    }
  }

  private void keep(String line) {
    synchronized (lastLines) {
      if (lastLines.size() == KEPT_LINES) {
        lastLines.removeFirst();
      }
      lastLines.add(Terminal.harmless(line.substring(0, Math.min(KEPT_LINE_CHARS, line.length()))));
    }
  }
}
