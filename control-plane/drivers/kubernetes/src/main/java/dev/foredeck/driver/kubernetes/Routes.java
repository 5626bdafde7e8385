package dev.foredeck.driver.kubernetes;

import dev.foredeck.core.Id;
import io.fabric8.kubernetes.client.KubernetesClient;
import io.fabric8.kubernetes.client.KubernetesClientException;
import io.fabric8.kubernetes.client.LocalPortForward;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/// Where to dial for a pod's port: the pod itself, or a port of this host's loopback that the API
/// server leads on to it. Others on this host may dial that port too: what they find is the agent,
/// which speaks with nobody but the deployment.
///
/// Threading: any.
final class Routes implements AutoCloseable {
  private final KubernetesConfig config;
  private final KubernetesClient client;
  private final Map<Id, LocalPortForward> forwards = new ConcurrentHashMap<>();

  Routes(KubernetesConfig config, KubernetesClient client) {
    this.config = config;
    this.client = client;
  }

  /// @param pod its own address and port
  InetSocketAddress to(Id sandbox, InetSocketAddress pod) throws IOException {
    return switch (config.reach()) {
      case POD_IP -> pod;
      case PORT_FORWARD -> {
        try {
          LocalPortForward forward =
              forwards.compute(
                  sandbox,
                  (_, known) ->
                      known != null && known.isAlive() ? known : open(sandbox, pod.getPort()));
          yield new InetSocketAddress(forward.getLocalAddress(), forward.getLocalPort());
        } catch (KubernetesClientException e) {
          throw new IOException("no port forward: " + Api.said(e), e);
        }
      }
    };
  }

  private LocalPortForward open(Id sandbox, int port) {
    return client
        .pods()
        .inNamespace(config.namespace())
        .withName(sandbox.value())
        // Not on every address of this host, which is what it does unless told.
        .portForward(port, InetAddress.getLoopbackAddress(), 0);
  }

  void forget(Id sandbox) {
    LocalPortForward forward = forwards.remove(sandbox);
    if (forward != null) {
      close(forward);
    }
  }

  @Override
  public void close() {
    forwards.keySet().forEach(this::forget);
  }

  static void close(LocalPortForward forward) {
    try {
      forward.close();
    } catch (IOException _) {
      // Closed is closed.
    }
  }
}
