package dev.foredeck.driver.kubernetes;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.driver.kubernetes.KubernetesConfig.Isolation;
import io.fabric8.kubernetes.api.model.NamespaceBuilder;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/// What holds sandboxes in is proven before the driver accepts work, and refused where it does not
/// hold. This cluster's network ignores NetworkPolicies.
@Timeout(value = 5, unit = TimeUnit.MINUTES)
class IsolationIT {
  private static final Duration TIMEOUT = Duration.ofMinutes(2);

  private Cluster cluster;

  @BeforeEach
  void join() throws IOException {
    cluster = Cluster.join();
  }

  @AfterEach
  void leave() throws IOException {
    cluster.close();
  }

  private List<String> probe(KubernetesConfig config) {
    try (KubernetesDriver driver = cluster.driver(config)) {
      return driver.probe(TIMEOUT);
    }
  }

  @Test
  void thePodsFirewallHoldsARuncSandbox() {
    assertThat(probe(cluster.config(Cluster.base(Optional.of("runc"))))).isEmpty();
  }

  @Test
  void thePodsFirewallHoldsAGvisorSandbox() {
    assertThat(probe(cluster.config(Cluster.base(Optional.of("gvisor"))))).isEmpty();
  }

  @Test
  void aNetworkThatIgnoresPoliciesIsRefused() {
    KubernetesConfig config =
        Cluster.with(cluster.config(Cluster.base(Optional.of("runc"))), Isolation.NETWORK_POLICY);
    // Without the admission policy, which asks for the firewall.
    var _ =
        cluster
            .client
            .resource(
                new NamespaceBuilder()
                    .withNewMetadata()
                    .withName(config.namespace())
                    .endMetadata()
                    .build())
            .create();
    try (KubernetesDriver driver = cluster.unguarded(config)) {
      assertThat(driver.probe(TIMEOUT))
          .anySatisfy(finding -> assertThat(finding).contains("another sandbox", "tcp/fe80"))
          .anySatisfy(finding -> assertThat(finding).contains("another sandbox", "tcp/10."))
          .anySatisfy(finding -> assertThat(finding).contains("the API server"))
          .anySatisfy(finding -> assertThat(finding).contains("the kubelet"))
          .noneSatisfy(finding -> assertThat(finding).contains("gateway"));
    }
  }
}
