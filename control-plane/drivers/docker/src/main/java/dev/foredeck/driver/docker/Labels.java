package dev.foredeck.driver.docker;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.LaunchSpec;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// The labels by which the driver knows its containers, and people find them.
final class Labels {
  static final String DEPLOYMENT = "dev.foredeck.deployment";
  static final String SANDBOX = "dev.foredeck.sandbox";
  static final String TENANT = "dev.foredeck.tenant";

  /// Before the labels that a sandbox was asked for with, so that none can pass for one of ours.
  private static final String ASKED = "dev.foredeck.label/";

  private Labels() {}

  static Map<String, String> of(LaunchSpec spec, String deployment) {
    Map<String, String> labels = new HashMap<>();
    spec.labels().forEach((name, value) -> labels.put(ASKED + name, value));
    labels.put(DEPLOYMENT, deployment);
    labels.put(SANDBOX, spec.sandbox().value());
    spec.tenant().ifPresent(tenant -> labels.put(TENANT, tenant.value()));
    return labels;
  }

  static Optional<Id> sandbox(@Nullable Map<String, String> labels) {
    return labels == null
        ? Optional.empty()
        : Optional.ofNullable(labels.get(SANDBOX)).filter(Id::isValid).map(Id::new);
  }
}
