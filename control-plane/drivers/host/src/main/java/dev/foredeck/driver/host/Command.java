package dev.foredeck.driver.host;

import dev.foredeck.core.driver.DriverException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/// One run of a program of the host: killed at its deadline, its output bounded, its environment
/// nothing but PATH (the control plane's own may hold secrets).
public final class Command {
  /// No program that the driver runs needs longer; one that does hangs.
  private static final Duration HARD_LIMIT = Duration.ofSeconds(20);

  private static final int OUTPUT_BYTES = 16 * 1024;
  public static final String PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

  private Command() {}

  public record Result(int exitCode, String output) {
    public boolean succeeded() {
      return exitCode == 0;
    }
  }

  /// Runs it and returns how it ended, whatever that was.
  public static Result run(Deadline deadline, String... argv) throws DriverException.Failed {
    ProcessBuilder builder = prepare(List.of(argv)).redirectErrorStream(true);
    Process process = start(builder);
    StringBuilder output = new StringBuilder();
    Thread reader = Thread.ofVirtual().start(() -> readBounded(process.getInputStream(), output));
    int exitCode = await(process, deadline, argv[0]);
    try {
      // A child of the program may hold the pipe: what was printed until now is enough.
      reader.join(Duration.ofMillis(200));
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    }
    synchronized (output) {
      return new Result(exitCode, output.toString().strip());
    }
  }

  /// Runs it, and fails with its output unless it exits with 0.
  public static String require(Deadline deadline, String doing, String... argv)
      throws DriverException.Failed {
    Result result = run(deadline, argv);
    if (!result.succeeded()) {
      throw new DriverException.Failed(
          "cannot " + doing + ": " + argv[0] + " ended with " + result.exitCode() + tail(result));
    }
    return result.output();
  }

  /// Runs a program whose children go on and keep its streams, hence a file and no pipe.
  public static Result detach(Deadline deadline, Path streams, String... argv)
      throws DriverException.Failed {
    ProcessBuilder builder =
        prepare(List.of(argv))
            .redirectErrorStream(true)
            .redirectOutput(ProcessBuilder.Redirect.appendTo(streams.toFile()));
    return new Result(await(start(builder), deadline, argv[0]), "");
  }

  public static String tail(Result result) {
    return result.output().isEmpty() ? "" : ": " + lastLine(result.output());
  }

  /// The last line, cut to what fits a message.
  public static String lastLine(String text) {
    String line = text.strip();
    line = line.substring(line.lastIndexOf('\n') + 1);
    line = line.replaceAll("\\p{Cntrl}", " ");
    return line.length() <= 400 ? line : line.substring(0, 400);
  }

  private static ProcessBuilder prepare(List<String> argv) {
    ProcessBuilder builder = new ProcessBuilder(argv);
    builder.environment().clear();
    builder.environment().putAll(Map.of("PATH", PATH, "LC_ALL", "C"));
    builder.directory(Path.of("/").toFile());
    builder.redirectInput(Path.of("/dev/null").toFile());
    return builder;
  }

  private static Process start(ProcessBuilder builder) throws DriverException.Failed {
    try {
      return builder.start();
    } catch (IOException e) {
      throw new DriverException.Failed("cannot run " + builder.command().get(0), e);
    }
  }

  private static int await(Process process, Deadline deadline, String name)
      throws DriverException.Failed {
    Deadline own = deadline.atMost(HARD_LIMIT);
    try {
      if (process.waitFor(Math.max(0, own.remainingNanos()), TimeUnit.NANOSECONDS)) {
        return process.exitValue();
      }
      process.destroyForcibly();
      throw new DriverException.Failed(name + " did not end in time and was killed");
    } catch (InterruptedException e) {
      process.destroyForcibly();
      Thread.currentThread().interrupt();
      throw new DriverException.Failed("interrupted while " + name + " ran", e);
    }
  }

  private static void readBounded(InputStream in, StringBuilder output) {
    byte[] buffer = new byte[4096];
    try (in) {
      int kept = 0;
      for (int n = in.read(buffer); n >= 0; n = in.read(buffer)) {
        int keep = Math.min(n, OUTPUT_BYTES - kept);
        kept += keep;
        synchronized (output) {
          output.append(new String(buffer, 0, keep, StandardCharsets.UTF_8));
        }
      }
    } catch (IOException _) {
      // The program was killed: what was read so far is what there is.
    }
  }
}
