package dev.foredeck.driver.kubernetes;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.TimeUnit;

/// A part of the test cluster of this host, which a test may take away for a while. Nobody else's
/// cluster is touched.
enum Component {
  APISERVER,
  KUBELET,
  CONTAINERD;

  private static final Path KUBECONFIG = Path.of("/var/lib/foredeck-test-cluster/admin.kubeconfig");
  private static final int COMMAND_SECONDS = 150;

  /// Skips the test where KUBECONFIG is another cluster.
  static void assumeOurs() {
    String asked = Cluster.required("KUBECONFIG");
    assumeTrue(
        KUBECONFIG.equals(Path.of(asked)),
        "KUBECONFIG is "
            + asked
            + ", not the test cluster of this host (./foredeck cluster up):"
            + " its components are not ours to stop");
  }

  void stop() throws IOException, InterruptedException {
    control("stop");
  }

  void kill() throws IOException, InterruptedException {
    control("kill");
  }

  void start() throws IOException, InterruptedException {
    control("start");
  }

  private void control(String verb) throws IOException, InterruptedException {
    String program = root().resolve("deploy/test-cluster/cluster.py").toString();
    command("/usr/bin/python3", "-B", program, verb, name().toLowerCase(Locale.ROOT));
  }

  private static Path root() {
    Path folder = Path.of("").toAbsolutePath();
    while (folder != null && !Files.exists(folder.resolve("deploy/test-cluster/cluster.py"))) {
      folder = folder.getParent();
    }
    assertThat(folder).as("the checkout that this test runs in").isNotNull();
    return folder;
  }

  /// Runs it to its end, which must be a good one.
  static void command(String... words) throws IOException, InterruptedException {
    Path said = Files.createTempFile("foredeck-fault", ".log");
    Process process =
        new ProcessBuilder(new ArrayList<>(List.of(words)))
            .redirectErrorStream(true)
            .redirectOutput(said.toFile())
            .start();
    try {
      boolean ended = process.waitFor(COMMAND_SECONDS, TimeUnit.SECONDS);
      assertThat(ended && process.exitValue() == 0)
          .as("%s: %s", String.join(" ", words), Files.readString(said, StandardCharsets.UTF_8))
          .isTrue();
    } finally {
      process.destroyForcibly();
      Files.delete(said);
    }
  }
}
