package dev.foredeck.driver.kubernetes;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowable;

import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.driver.kubernetes.KubernetesConfig.StrongRuntime;
import dev.foredeck.policy.Isolation;
import io.fabric8.kubernetes.api.model.NamespaceBuilder;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
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
        Cluster.with(
            cluster.config(Cluster.base(Optional.of("runc"))),
            KubernetesConfig.Isolation.NETWORK_POLICY);
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

  /// The breaking test of the proof: a RuntimeClass that names itself strong, and is the node's own
  /// kernel.
  @Test
  void aRuntimeThatOnlyCallsItselfStrongIsRefused() throws Exception {
    String name = cluster.runtimeClass("runc");
    // Each alone refuses: that the kernel is the node's, and that gVisor was promised.
    assertThat(strongRefusal(new StrongRuntime(name, true)))
        .contains("isolation strong", "runs on its node's kernel");
    assertThat(strongRefusal(new StrongRuntime("no-such-runtime", true)))
        .contains("isolation strong", "no-such-runtime");
  }

  /// What a launch says that asks for strong isolation, on a driver whose other promises hold.
  private String strongRefusal(StrongRuntime strong) throws Exception {
    KubernetesConfig config =
        Cluster.with(cluster.config(Cluster.base(Optional.of("runc"))), Optional.of(strong));
    try (KubernetesDriver driver = cluster.driver(config)) {
      LaunchSpec spec =
          Cluster.spec(Cluster.id(), Cluster.boundary(Isolation.STRONG, OptionalInt.empty()));
      assertThatThrownBy(() -> driver.launch(spec, TIMEOUT))
          .isInstanceOf(DriverException.Refused.class)
          .hasMessageContaining("has not been probed");
      assertThat(driver.probe(TIMEOUT)).isEmpty();
      Throwable refusal = catchThrowable(() -> driver.launch(spec, TIMEOUT));
      assertThat(refusal).isInstanceOf(DriverException.Refused.class);
      return String.valueOf(refusal.getMessage());
    }
  }

  @Test
  void strongIsolationIsGivenOnceItIsProven() throws Exception {
    try (KubernetesDriver driver =
        cluster.driver(cluster.config(Cluster.base(Optional.of("runc"))))) {
      assertThat(driver.probe(TIMEOUT)).isEmpty();
      LaunchSpec spec =
          Cluster.spec(Cluster.id(), Cluster.boundary(Isolation.STRONG, OptionalInt.empty()));
      driver.launch(spec, TIMEOUT);
      assertThat(Cluster.run(driver, spec.sandbox(), "cat", "/proc/version").text())
          .contains("gvisor");
      driver.destroy(spec.sandbox(), TIMEOUT);
    }
  }

  @Test
  void aNumberOfProcessesIsRefusedWhereUsersAreShared() throws Exception {
    Template shared = Cluster.withoutUserNamespace(Cluster.base(Optional.of("runc")));
    try (KubernetesDriver driver = cluster.driver(cluster.config(shared))) {
      LaunchSpec limited =
          Cluster.spec(Cluster.id(), Cluster.boundary(Isolation.STANDARD, OptionalInt.of(128)));
      assertThatThrownBy(() -> driver.launch(limited, TIMEOUT))
          .isInstanceOf(DriverException.Refused.class)
          .hasMessageContaining("boundary.limits.pids")
          .hasMessageContaining("userNamespace");
      assertThat(cluster.pod(limited.sandbox())).isEmpty();
    }
  }
}
