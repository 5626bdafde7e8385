package dev.foredeck.driver.kubernetes;

import io.fabric8.kubernetes.api.model.Toleration;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// What a sandbox is made from: an image, and how and where the operator wants its pods to run.
///
/// @param image any image with glibc; its user and its entry point are not used
/// @param runtimeClass of the cluster; empty: the cluster's default
/// @param userNamespace whether the pod has users of its own, which the limit of processes needs
///   (not with gVisor, whose processes are not the host's)
/// @param priorityClass of the cluster; empty: the cluster's default
/// @param labels of its pods, beside the driver's own
/// @param annotations of its pods, beside the driver's own
public record Template(
    String image,
    Optional<String> runtimeClass,
    boolean userNamespace,
    Workspace workspace,
    Map<String, String> nodeSelector,
    List<Toleration> tolerations,
    List<String> imagePullSecrets,
    Optional<String> priorityClass,
    Map<String, String> labels,
    Map<String, String> annotations) {

  public Template {
    nodeSelector = Map.copyOf(nodeSelector);
    tolerations = List.copyOf(tolerations);
    imagePullSecrets = List.copyOf(imagePullSecrets);
    labels = Map.copyOf(labels);
    annotations = Map.copyOf(annotations);
  }

  /// Where the workspace's bytes are.
  public sealed interface Workspace {
    /// The node's disk. The kubelet looks about once a minute, and evicts a sandbox that has more
    /// than its limit; until then it may have more.
    record NodeDisk() implements Workspace {}

    /// Memory, which counts against the sandbox's own: a hard limit, and `ENOSPC`.
    record Memory() implements Workspace {}

    /// A volume of its own that goes with the pod: its size is its limit.
    record Volume(String storageClass) implements Workspace {}
  }
}
