package dev.foredeck.driver.kubernetes;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.policy.Isolation;
import io.fabric8.kubernetes.api.model.NodeSelectorRequirementBuilder;
import io.fabric8.kubernetes.api.model.PersistentVolume;
import io.fabric8.kubernetes.api.model.PersistentVolumeBuilder;
import io.fabric8.kubernetes.api.model.Quantity;
import io.fabric8.kubernetes.api.model.ResourceQuota;
import io.fabric8.kubernetes.api.model.ResourceQuotaBuilder;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/// What a cluster does not take, each said in words that a user can act on; and what a template may
/// ask for beyond an image.
@Timeout(value = 3, unit = TimeUnit.MINUTES)
class AdmissionIT {
  private static final Duration TIMEOUT = Duration.ofMinutes(1);
  private static final Duration NEVER = Duration.ofSeconds(8);

  private final LaunchSpec spec =
      Cluster.spec(Cluster.id(), Cluster.boundary(Isolation.STANDARD, OptionalInt.empty()));
  private Cluster cluster;

  @BeforeEach
  void join() throws IOException {
    cluster = Cluster.join();
  }

  @AfterEach
  void leave() throws IOException {
    cluster.close();
  }

  /// @param more of the template, as an operator writes it
  private KubernetesDriver driver(String more) {
    Templates templates =
        Templates.parse(
            """
            agentImage: unused
            firewallImage: unused
            templates:
              base: {image: "%s", runtimeClass: runc%s}
            """
                .formatted(Cluster.required("FOREDECK_TEST_BASE_IMAGE"), more));
    Template template = templates.byName().values().iterator().next();
    return cluster.driver(cluster.config(template));
  }

  private void refused(KubernetesDriver driver, Class<? extends DriverException> how, String... why)
      throws DriverException {
    try (driver) {
      assertThatThrownBy(() -> driver.launch(spec, NEVER))
          .isInstanceOf(how)
          .hasMessageContainingAll(why);
      driver.destroy(spec.sandbox(), TIMEOUT);
    }
    assertThat(cluster.pod(spec.sandbox())).isEmpty();
  }

  /// No pod is admitted from here on.
  private ResourceQuota useUpTheQuota() {
    ResourceQuota quota =
        new ResourceQuotaBuilder()
            .withNewMetadata()
            .withName("none")
            .withNamespace(cluster.namespace)
            .endMetadata()
            .withNewSpec()
            .addToHard("pods", new Quantity("0"))
            .endSpec()
            .build();
    var _ = cluster.client.resource(quota).create();
    // It counts from when the cluster has looked at it.
    var _ =
        cluster
            .client
            .resource(quota)
            .waitUntilCondition(
                q -> q != null && q.getStatus() != null && !q.getStatus().getHard().isEmpty(),
                TIMEOUT.toSeconds(),
                TimeUnit.SECONDS);
    return quota;
  }

  @Test
  void aQuotaThatIsUsedUpIsFull() throws Exception {
    try (KubernetesDriver driver = driver("")) {
      ResourceQuota _ = useUpTheQuota();
      refused(driver, DriverException.Full.class, "the quota of the namespace is used up", "pods");
    }
  }

  /// A control plane that starts again in a full cluster looks after its sandboxes.
  @Test
  void aClusterWithoutRoomForTheCanariesHasItsIsolationProvenBeforeTheFirstLaunch()
      throws Exception {
    try (KubernetesDriver driver = driver("")) {
      driver.launch(spec, TIMEOUT);
      ResourceQuota quota = useUpTheQuota();
      assertThat(driver.probe(TIMEOUT)).isEmpty();
      assertThat(Cluster.run(driver, spec.sandbox(), "echo", "here").text()).isEqualTo("here\n");
      LaunchSpec another =
          Cluster.spec(Cluster.id(), Cluster.boundary(Isolation.STANDARD, OptionalInt.empty()));
      assertThatThrownBy(() -> driver.launch(another, TIMEOUT))
          .isInstanceOf(DriverException.Full.class)
          .hasMessageContainingAll("canaries have to prove first", "quota");

      var _ = cluster.client.resource(quota).delete();
      driver.launch(another, TIMEOUT);
      driver.destroy(another.sandbox(), TIMEOUT);
      driver.destroy(spec.sandbox(), TIMEOUT);
    }
  }

  @Test
  void aPodWithoutItsFirewallIsNotAdmitted() throws Exception {
    KubernetesConfig guarded = cluster.config(Cluster.base(Optional.of("runc")));
    cluster.driver(guarded).close();
    refused(
        cluster.unguarded(Cluster.with(guarded, KubernetesConfig.Isolation.NETWORK_POLICY)),
        DriverException.Refused.class,
        "the cluster does not admit its pod",
        "firewall");
  }

  @Test
  void aPriorityThatTheClusterDoesNotHaveIsNamed() throws Exception {
    refused(
        driver(", priorityClass: no-such-priority"),
        DriverException.Refused.class,
        "the cluster does not admit its pod",
        "no-such-priority");
  }

  @Test
  void aNodeThatTheClusterDoesNotHaveIsSaidToBeMissing() throws Exception {
    refused(
        driver(", nodeSelector: {pool: no-such-pool}"),
        DriverException.Full.class,
        "the cluster has no node for it",
        "selector");
  }

  @Test
  void aWorkspaceMayBeAVolumeThatGoesWithTheSandbox() throws Exception {
    Component.assumeOurs();
    Path disk = Files.createTempDirectory(Cluster.OURS, "volume-");
    PersistentVolume volume =
        new PersistentVolumeBuilder()
            .withNewMetadata()
            .withName(cluster.namespace)
            .endMetadata()
            .withNewSpec()
            .withStorageClassName(cluster.namespace)
            .withAccessModes("ReadWriteOnce")
            .withPersistentVolumeReclaimPolicy("Retain")
            .withCapacity(Map.of("storage", new Quantity("64Mi")))
            .withNewLocal()
            .withPath(disk.toString())
            .endLocal()
            .withNewNodeAffinity()
            .withNewRequired()
            .addNewNodeSelectorTerm()
            .withMatchExpressions(
                new NodeSelectorRequirementBuilder()
                    .withKey("kubernetes.io/hostname")
                    .withOperator("Exists")
                    .build())
            .endNodeSelectorTerm()
            .endRequired()
            .endNodeAffinity()
            .endSpec()
            .build();
    var _ = cluster.client.resource(volume).create();
    try (KubernetesDriver driver =
        driver(", workspace: {storageClass: \"" + cluster.namespace + "\"}")) {
      driver.launch(spec, TIMEOUT);
      assertThat(Cluster.run(driver, spec.sandbox(), "sh", "-c", "echo kept > note").exitCode())
          .isZero();
      assertThat(Files.readString(disk.resolve("note"))).isEqualTo("kept\n");
      driver.destroy(spec.sandbox(), TIMEOUT);
      var _ =
          cluster
              .client
              .persistentVolumeClaims()
              .inNamespace(cluster.namespace)
              .withName(spec.sandbox().value() + "-workspace")
              .waitUntilCondition(c -> c == null, TIMEOUT.toSeconds(), TimeUnit.SECONDS);
    } finally {
      var _ = cluster.client.resource(volume).delete();
      Files.deleteIfExists(disk.resolve("note"));
      Files.delete(disk);
    }
  }
}
