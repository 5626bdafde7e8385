package dev.foredeck.driver.kubernetes;

import java.io.IOException;
import java.util.OptionalLong;
import java.util.regex.Pattern;

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

  @Override
  protected Filter filter() {
    return Filter.THE_RUNTIMES;
  }

  @Override
  protected Sysfs sysfs() {
    return Sysfs.READ_ONLY;
  }

  /// Beside the usual: message queues, which are memory of this sandbox's own and few
  /// (RLIMIT_MSGQUEUE). The runtime mounts them in every pod.
  @Override
  protected Pattern writableFiles() {
    return Pattern.compile(super.writableFiles() + "|/dev/mqueue");
  }
}
