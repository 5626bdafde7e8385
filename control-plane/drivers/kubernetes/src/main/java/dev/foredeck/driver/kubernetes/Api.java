package dev.foredeck.driver.kubernetes;

import dev.foredeck.driver.host.Deadline;
import io.fabric8.kubernetes.client.Config;
import io.fabric8.kubernetes.client.ConfigBuilder;
import io.fabric8.kubernetes.client.KubernetesClient;
import io.fabric8.kubernetes.client.KubernetesClientBuilder;
import io.fabric8.kubernetes.client.KubernetesClientException;
import io.fabric8.kubernetes.client.RequestConfigBuilder;
import io.fabric8.kubernetes.client.jdkhttp.JdkHttpClientFactory;
import java.time.Duration;
import java.util.concurrent.TimeUnit;

/// The API server.
final class Api {
  private static final int CONNECT_MILLIS = 5_000;
  private static final int REQUEST_MILLIS = 10_000;
  private static final int RECONNECT_MILLIS = 500;
  private static final int CONCURRENT_REQUESTS = 64;

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

  /// What the server said, or what kept it from answering, for a person.
  static String said(KubernetesClientException e) {
    if (e.getStatus() != null && e.getStatus().getMessage() != null) {
      return PodView.text(e.getStatus().getMessage());
    }
    Throwable cause = e.getCause() == null ? e : e.getCause();
    return PodView.text(cause.toString());
  }
}
