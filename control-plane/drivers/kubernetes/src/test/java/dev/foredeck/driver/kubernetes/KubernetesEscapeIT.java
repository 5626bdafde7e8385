package dev.foredeck.driver.kubernetes;

import java.io.IOException;
import java.util.OptionalLong;

/// Pods on the node's kernel, each in a user namespace of its own.
class KubernetesEscapeIT extends PodEscape {
  KubernetesEscapeIT() throws IOException {
    super("runc");
  }

  /// Where the kubelet's ranges of users begin.
  @Override
  protected OptionalLong usersFrom() {
    return OptionalLong.of(65_536);
  }
}
