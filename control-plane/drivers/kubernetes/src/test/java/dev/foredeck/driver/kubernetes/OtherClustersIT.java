package dev.foredeck.driver.kubernetes;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.driver.kubernetes.KubernetesConfig.AgentDelivery;
import dev.foredeck.driver.kubernetes.KubernetesConfig.Reach;
import dev.foredeck.policy.Isolation;
import java.io.IOException;
import java.time.Duration;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/// What other people's clusters are like: no route to pods, no image volumes, a runtime that is not
/// there.
@Timeout(value = 3, unit = TimeUnit.MINUTES)
class OtherClustersIT {
  private static final Duration TIMEOUT = Duration.ofMinutes(1);
  private static final Duration NEVER = Duration.ofSeconds(8);

  private Cluster cluster;

  @BeforeEach
  void join() throws IOException {
    cluster = Cluster.join();
  }

  @AfterEach
  void leave() throws IOException {
    cluster.close();
  }

  private static LaunchSpec spec() {
    return Cluster.spec(Cluster.id(), Cluster.boundary(Isolation.STANDARD, OptionalInt.empty()));
  }

  @Test
  void theApiServerLeadsOnToASandboxAndItsIsolationIsProvenThatWay() throws Exception {
    KubernetesConfig config =
        Cluster.with(cluster.config(Cluster.base(Optional.of("runc"))), Reach.PORT_FORWARD);
    LaunchSpec spec = spec();
    try (KubernetesDriver driver = cluster.driver(config)) {
      assertThat(driver.probe(TIMEOUT)).isEmpty();
      driver.launch(spec, TIMEOUT);
      assertThat(Cluster.run(driver, spec.sandbox(), "echo", "one").text()).isEqualTo("one\n");
      assertThat(Cluster.run(driver, spec.sandbox(), "echo", "two").text()).isEqualTo("two\n");
    }
    try (KubernetesDriver another = cluster.driver(config)) {
      assertThat(Cluster.run(another, spec.sandbox(), "echo", "three").text()).isEqualTo("three\n");
      another.destroy(spec.sandbox(), TIMEOUT);
    }
  }

  @Test
  void anInitContainerBringsTheAgentWhereImagesAreNoVolumes() throws Exception {
    KubernetesConfig config =
        Cluster.with(
            cluster.config(Cluster.base(Optional.of("runc"))), AgentDelivery.INIT_CONTAINER);
    LaunchSpec spec = spec();
    try (KubernetesDriver driver = cluster.driver(config)) {
      assertThat(driver.probe(TIMEOUT)).isEmpty();
      driver.launch(spec, TIMEOUT);
      assertThat(Cluster.run(driver, spec.sandbox(), "echo", "one").text()).isEqualTo("one\n");
      driver.destroy(spec.sandbox(), TIMEOUT);
    }
  }

  /// Nothing in the pod itself tells of it.
  @Test
  void aPodThatItsRuntimeCannotMakeSaysWhy() {
    String runtime = cluster.runtimeClass("no-such-handler");
    try (KubernetesDriver driver =
        cluster.driver(cluster.config(Cluster.base(Optional.of(runtime))))) {
      LaunchSpec spec = spec();
      assertThatThrownBy(() -> driver.launch(spec, NEVER))
          .isInstanceOf(DriverException.Failed.class)
          .hasMessageContaining("its pod did not start in time: FailedCreatePodSandBox")
          .hasMessageContaining("no-such-handler");
    }
  }
}
