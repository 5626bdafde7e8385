package dev.foredeck.driver.kubernetes;

import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.kubernetes.KubernetesConfig.AgentDelivery;
import io.fabric8.kubernetes.api.model.Event;
import io.fabric8.kubernetes.api.model.Pod;
import io.fabric8.kubernetes.client.Config;
import io.fabric8.kubernetes.client.ConfigBuilder;
import io.fabric8.kubernetes.client.KubernetesClient;
import io.fabric8.kubernetes.client.KubernetesClientBuilder;
import io.fabric8.kubernetes.client.KubernetesClientException;
import io.fabric8.kubernetes.client.RequestConfigBuilder;
import io.fabric8.kubernetes.client.VersionInfo;
import io.fabric8.kubernetes.client.jdkhttp.JdkHttpClientFactory;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// The API server.
final class Api {
  private static final Logger LOG = LoggerFactory.getLogger(Api.class);
  private static final int CONNECT_MILLIS = 5_000;
  private static final int REQUEST_MILLIS = 10_000;
  private static final int RECONNECT_MILLIS = 500;
  private static final int CONCURRENT_REQUESTS = 64;

  private static final int IMAGE_VOLUMES_SINCE = 36;

  private Api() {}

  /// As kubectl would: KUBECONFIG, the user's own configuration, or the pod's service account.
  static KubernetesClient client() {
    return client(Config.autoConfigure(null));
  }

  static KubernetesClient client(Config base) {
    Config config =
        new ConfigBuilder(base)
            .withConnectionTimeout(CONNECT_MILLIS)
            .withRequestTimeout(REQUEST_MILLIS)
            // A verb of the driver is repeated by whoever called it.
            .withRequestRetryBackoffLimit(1)
            .withRequestRetryBackoffInterval(100)
            .withWatchReconnectInterval(RECONNECT_MILLIS)
            .withWatchReconnectLimit(-1)
            .withMaxConcurrentRequests(CONCURRENT_REQUESTS)
            .build();
    return new KubernetesClientBuilder()
        .withHttpClientFactory(new JdkHttpClientFactory())
        .withConfig(config)
        .build();
  }

  /// The same client, whose requests end with the deadline.
  static KubernetesClient within(KubernetesClient client, Deadline deadline) {
    long nanos = deadline.atMost(Duration.ofMillis(REQUEST_MILLIS)).remainingNanos();
    int millis = (int) Math.max(1, TimeUnit.NANOSECONDS.toMillis(nanos));
    return client
        .newClient(
            new RequestConfigBuilder(client.getConfiguration().getRequestConfig())
                .withRequestTimeout(millis)
                .build())
        .adapt(KubernetesClient.class);
  }

  /// Image volumes are in every cluster from 1.36 on.
  static AgentDelivery agentDelivery(KubernetesClient client) {
    VersionInfo version = client.getKubernetesVersion();
    int major = number(version.getMajor());
    int minor = number(version.getMinor());
    return major > 1 || (major == 1 && minor >= IMAGE_VOLUMES_SINCE)
        ? AgentDelivery.IMAGE_VOLUME
        : AgentDelivery.INIT_CONTAINER;
  }

  /// Some say `36+`.
  private static int number(String text) {
    String digits = text.replaceAll("[^0-9].*", "");
    return digits.isEmpty() ? 0 : Integer.parseInt(digits);
  }

  /// What the cluster's parts complained of about a pod; empty where it does not let us see events,
  /// which nobody has to.
  static List<Event> warnings(KubernetesClient client, Pod pod) {
    try {
      return client
          .v1()
          .events()
          .inNamespace(pod.getMetadata().getNamespace())
          .withField("involvedObject.uid", pod.getMetadata().getUid())
          .withField("type", "Warning")
          .list()
          .getItems();
    } catch (KubernetesClientException e) {
      LOG.debug("no events of the pod {}", pod.getMetadata().getName(), e);
      return List.of();
    }
  }

  /// What the server said, or what kept it from answering, for a person.
  static String said(KubernetesClientException e) {
    if (e.getStatus() != null && e.getStatus().getMessage() != null) {
      return PodView.text(e.getStatus().getMessage());
    }
    Throwable cause = e.getCause() == null ? e : e.getCause();
    return PodView.text(cause.toString());
  }
}
