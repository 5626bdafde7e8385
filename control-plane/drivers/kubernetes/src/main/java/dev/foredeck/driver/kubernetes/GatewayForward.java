package dev.foredeck.driver.kubernetes;

import io.fabric8.kubernetes.api.model.Pod;
import io.fabric8.kubernetes.client.KubernetesClient;
import io.fabric8.kubernetes.client.KubernetesClientException;
import io.fabric8.kubernetes.client.LocalPortForward;
import io.fabric8.kubernetes.client.readiness.Readiness;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import org.jspecify.annotations.Nullable;

/// A port of this host's loopback that the API server leads on to the gateway's control port, for a
/// control plane that has no route to pods. Anew for each connection: the gateway's pod may be
/// another one by then. Others on this host may dial it too: without the key it serves nobody.
///
/// Threading: any.
final class GatewayForward implements AutoCloseable {
  private final KubernetesClient client;
  private final String namespace;
  private final String name;
  private final int port;
  private @Nullable LocalPortForward forward;
  private boolean closed;

  /// @param client owned by this from here on
  /// @param name of the gateway's pods, in their label
  GatewayForward(KubernetesClient client, String namespace, String name, int port) {
    this.client = client;
    this.namespace = namespace;
    this.name = name;
    this.port = port;
  }

  /// Ends the connection over the former one.
  ///
  /// @throws IOException when the cluster does not answer, or no pod of the gateway's is ready
  synchronized InetSocketAddress open() throws IOException {
    if (closed) {
      throw new IOException("closed");
    }
    endForward();
    try {
      LocalPortForward opened =
          client
              .pods()
              .inNamespace(namespace)
              .withName(readyPod().getMetadata().getName())
              .portForward(port, InetAddress.getLoopbackAddress(), 0);
      forward = opened;
      return new InetSocketAddress(opened.getLocalAddress(), opened.getLocalPort());
    } catch (KubernetesClientException e) {
      throw new IOException("no port forward to the gateway: " + Api.said(e), e);
    }
  }

  private Pod readyPod() throws IOException {
    return client
        .pods()
        .inNamespace(namespace)
        .withLabel("app.kubernetes.io/name", name)
        .list()
        .getItems()
        .stream()
        .filter(
            pod -> pod.getMetadata().getDeletionTimestamp() == null && Readiness.isPodReady(pod))
        .findFirst()
        .orElseThrow(() -> new IOException("no pod of the gateway's is ready"));
  }

  private void endForward() {
    LocalPortForward former = forward;
    forward = null;
    if (former != null) {
      Routes.close(former);
    }
  }

  @Override
  public synchronized void close() {
    closed = true;
    endForward();
    client.close();
  }
}
