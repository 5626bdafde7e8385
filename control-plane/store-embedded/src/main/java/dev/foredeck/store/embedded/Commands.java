package dev.foredeck.store.embedded;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/// Runs short programs of the host with a deadline.
final class Commands {
  private static final int MAX_OUTPUT_CHARS = 4_000;

  private Commands() {}

  /// @throws IOException with the program's output when it does not exit with 0 in time
  static void run(List<String> argv, Duration timeout) throws IOException {
    // To a file, because a daemon that the program starts keeps a pipe open.
    Path output = Files.createTempFile("foredeck-", ".out");
    try {
      ProcessBuilder builder =
          new ProcessBuilder(argv)
              .redirectInput(ProcessBuilder.Redirect.from(Path.of("/dev/null").toFile()))
              .redirectErrorStream(true)
              .redirectOutput(output.toFile());
      // PostgreSQL reads PG* variables, and a locale of the host may not exist for it.
      Map<String, String> environment = builder.environment();
      String path = environment.getOrDefault("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
      environment.clear();
      environment.put("PATH", path);
      environment.put("LC_ALL", "C");
      builder.directory(Path.of("/").toFile());
      Process process = builder.start();
      boolean ended;
      try {
        ended = process.waitFor(timeout.toMillis(), TimeUnit.MILLISECONDS);
      } catch (InterruptedException e) {
        process.destroyForcibly();
        Thread.currentThread().interrupt();
        throw new IOException("interrupted while running " + argv.getFirst(), e);
      }
      if (!ended) {
        process.destroyForcibly();
        throw new IOException(argv.getFirst() + " did not end within " + timeout);
      }
      if (process.exitValue() != 0) {
        String said = new String(Files.readAllBytes(output), StandardCharsets.UTF_8).strip();
        if (said.length() > MAX_OUTPUT_CHARS) {
          said = said.substring(said.length() - MAX_OUTPUT_CHARS);
        }
        throw new IOException(
            String.join(" ", argv) + ": exit status " + process.exitValue() + ": " + said);
      }
    } finally {
      Files.deleteIfExists(output);
    }
  }
}
