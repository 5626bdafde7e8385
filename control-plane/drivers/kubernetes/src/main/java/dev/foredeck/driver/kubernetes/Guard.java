package dev.foredeck.driver.kubernetes;

import io.fabric8.kubernetes.api.model.ConfigMapBuilder;
import io.fabric8.kubernetes.api.model.HasMetadata;
import io.fabric8.kubernetes.api.model.NamespaceBuilder;
import io.fabric8.kubernetes.client.KubernetesClient;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/// What a cluster's administrator sets up once: the namespace of the sandboxes, and the admission
/// policy that refuses a pod in it whose network is not closed.
final class Guard {
  static final String NAMESPACE_LABEL = "foredeck.dev/sandboxes";
  private static final String NAME = "foredeck-sandboxes";
  private static final String FIELD_MANAGER = "foredeck-install";

  private Guard() {}

  /// Idempotent. Needs an administrator's rights.
  static void install(KubernetesClient client, KubernetesConfig config) {
    List<HasMetadata> parts = new ArrayList<>();
    parts.add(
        new NamespaceBuilder()
            .withNewMetadata()
            .withName(config.namespace())
            .addToLabels(NAMESPACE_LABEL, "true")
            .endMetadata()
            .build());
    parts.add(
        new ConfigMapBuilder()
            .withNewMetadata()
            .withName(NAME)
            .withNamespace(config.namespace())
            .endMetadata()
            .withData(
                Map.of(
                    "firewallImage", config.firewallImage(),
                    "gateway", SandboxPod.gateway(config),
                    "admit", SandboxPod.admit(config)))
            .build());
    try (InputStream manifest =
        Objects.requireNonNull(Guard.class.getResourceAsStream("guard.yaml"))) {
      parts.addAll(client.load(manifest).items());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    for (HasMetadata part : parts) {
      var _ = client.resource(part).fieldManager(FIELD_MANAGER).forceConflicts().serverSideApply();
    }
  }
}
