package dev.foredeck.driver.kubernetes;

import java.net.InetSocketAddress;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// How a deployment uses a cluster.
///
/// @param namespace where its sandboxes' pods are
/// @param templates by name; the first is what a request gets that names none
/// @param agentImage has the agent's bundle as its root
/// @param firewallImage of the init container that closes a pod's network
/// @param strong how `boundary.isolation: strong` is given; empty: it is refused
/// @param gateway the egress gateway, an IPv4 address and a port
/// @param admit IPv4 addresses or networks that control planes dial from; nobody else gets through
///   to an agent's port
public record KubernetesConfig(
    String namespace,
    Map<String, Template> templates,
    String agentImage,
    String firewallImage,
    Optional<StrongRuntime> strong,
    InetSocketAddress gateway,
    List<String> admit,
    Reach reach,
    Isolation isolation,
    AgentDelivery agentDelivery) {

  /// The port that agents listen on.
  static final int AGENT_PORT = 7071;

  /// A runtime that gives each sandbox a kernel of its own.
  ///
  /// @param runtimeClass of the cluster
  /// @param gvisor whether it is gVisor, whose network stack is its own too
  public record StrongRuntime(String runtimeClass, boolean gvisor) {}

  /// How the control plane gets to a pod.
  public enum Reach {
    /// By its address: in the cluster, or on a host that routes to pods.
    POD_IP,
    /// Through the API server: from anywhere, and slower.
    PORT_FORWARD
  }

  /// What keeps a pod from everything but the gateway.
  public enum Isolation {
    /// Rules in the pod's own network namespace, made before its first program starts.
    POD_FIREWALL,
    /// A NetworkPolicy, where the cluster's network enforces it.
    NETWORK_POLICY
  }

  /// How the agent gets into an image that does not have it.
  public enum AgentDelivery {
    /// Mounted from its image: Kubernetes 1.36 and later.
    IMAGE_VOLUME,
    /// Copied by an init container.
    INIT_CONTAINER
  }
}
