package dev.foredeck.driver.kubernetes;

import dev.foredeck.core.DeploymentTls;
import dev.foredeck.core.Id;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Clock;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/// A control plane's driver in a process of its own, which launches sandboxes at once and is killed
/// while it does.
final class DoomedControlPlane {
  private DoomedControlPlane() {}

  /// @param arguments the file of the deployment's keys, the namespace, the gateway's port, and the
  ///   sandboxes
  public static void main(String[] arguments) throws Exception {
    DeploymentTls tls = DeploymentTls.parse(Files.readString(Path.of(arguments[0])));
    KubernetesConfig config =
        Cluster.config(
            arguments[1],
            Cluster.gateway(Integer.parseInt(arguments[2])),
            Cluster.base(Optional.of("runc")));
    try (KubernetesDriver driver =
            new KubernetesDriver(config, Api.client(), tls, Clock.systemUTC(), new SecureRandom());
        ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      for (String sandbox : List.of(arguments).subList(3, arguments.length)) {
        var _ =
            threads.submit(() -> {
              driver.launch(FaultsIT.spec(new Id(sandbox)), Duration.ofMinutes(2));
              return null;
            });
      }
    }
    Thread.sleep(Duration.ofMinutes(3));
  }
}
