package dev.foredeck.driver.kubernetes;

import dev.foredeck.core.DeploymentTls;
import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.AgentDialogue;
import dev.foredeck.core.driver.AgentDialogue.Outcome;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.driver.kubernetes.KubernetesConfig.AgentDelivery;
import dev.foredeck.driver.kubernetes.KubernetesConfig.Isolation;
import dev.foredeck.driver.kubernetes.KubernetesConfig.Reach;
import dev.foredeck.driver.kubernetes.KubernetesConfig.StrongRuntime;
import dev.foredeck.policy.Boundary;
import io.fabric8.kubernetes.api.model.Pod;
import io.fabric8.kubernetes.api.model.node.v1.RuntimeClassBuilder;
import io.fabric8.kubernetes.client.KubernetesClient;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.concurrent.atomic.AtomicInteger;

/// The cluster that KUBECONFIG names, and a namespace of the test's own in it. Fails where there is
/// none: whoever asks for these tests wants them to run. The admission policy, which concerns only
/// such namespaces, stays in the cluster.
final class Cluster implements AutoCloseable {
  static final Duration SOON = Duration.ofSeconds(60);
  private static final AtomicInteger COUNT = new AtomicInteger();

  /// The host's address on the cluster's bridge, which pods are reached from and reach.
  private static final String HOST_SEEN_BY_PODS = "10.244.0.1";

  /// The folder of the test cluster.
  static final Path OURS = Path.of("/var/lib/foredeck-test-cluster");

  final KubernetesClient client;
  final DeploymentTls tls;
  final String namespace;

  /// Accepts and says nothing: the address that a sandbox may reach.
  private final ServerSocket gateway;

  private Cluster(KubernetesClient client, ServerSocket gateway) {
    this.client = client;
    this.gateway = gateway;
    this.tls = DeploymentTls.generate(new SecureRandom());
    this.namespace =
        "foredeck-test-" + ProcessHandle.current().pid() + "-" + COUNT.incrementAndGet();
  }

  static Cluster join() throws IOException {
    String _ = required("KUBECONFIG");
    ServerSocket gateway = new ServerSocket(0, 64, InetAddress.getByName(hostAddress()));
    return new Cluster(Api.client(), gateway);
  }

  static String required(String variable) {
    String value = System.getenv(variable);
    if (value == null || value.isEmpty()) {
      throw new IllegalStateException(
          variable + " is not set: these tests need a cluster (./foredeck cluster up) and images");
    }
    return value;
  }

  private static String hostAddress() {
    return Optional.ofNullable(System.getenv("FOREDECK_TEST_HOST_ADDRESS")).orElse("10.99.0.1");
  }

  InetSocketAddress gateway() {
    return new InetSocketAddress(gateway.getInetAddress(), gateway.getLocalPort());
  }

  static Template base(Optional<String> runtimeClass) {
    return new Template(
        required("FOREDECK_TEST_BASE_IMAGE"),
        runtimeClass,
        true,
        new Template.Workspace.NodeDisk(),
        Map.of(),
        List.of(),
        List.of(),
        Optional.empty(),
        Map.of(),
        Map.of());
  }

  static Template with(Template template, Template.Workspace workspace) {
    return new Template(
        template.image(),
        template.runtimeClass(),
        template.userNamespace(),
        workspace,
        template.nodeSelector(),
        template.tolerations(),
        template.imagePullSecrets(),
        template.priorityClass(),
        template.labels(),
        template.annotations());
  }

  static Template withoutUserNamespace(Template template) {
    return new Template(
        template.image(),
        template.runtimeClass(),
        false,
        template.workspace(),
        template.nodeSelector(),
        template.tolerations(),
        template.imagePullSecrets(),
        template.priorityClass(),
        template.labels(),
        template.annotations());
  }

  static final String TOKEN = "the-token-of-this-sandbox";

  static Id id() {
    return new Ids(Clock.systemUTC(), new SecureRandom()).sandbox();
  }

  static Boundary boundary(dev.foredeck.policy.Isolation isolation, OptionalInt pids) {
    return new Boundary(
        List.of(),
        List.of(),
        OptionalLong.empty(),
        OptionalLong.empty(),
        OptionalInt.empty(),
        pids,
        Optional.empty(),
        isolation);
  }

  /// A small one: several fit on a node of two cores.
  static LaunchSpec spec(Id id, Boundary boundary) {
    return new LaunchSpec(
        id,
        new Id("ten000000000000tests"),
        "base",
        new Resources(100, 192L << 20, 16L << 20, 128),
        boundary,
        TOKEN,
        Map.of(),
        Instant.parse("2100-01-01T00:00:00Z"));
  }

  static Outcome run(KubernetesDriver driver, Id sandbox, String... argv) throws Exception {
    String call = new Ids(Clock.systemUTC(), new SecureRandom()).call().value();
    return AgentDialogue.run(driver.connect(sandbox, TOKEN, SOON), call, argv);
  }

  /// Folders of this host that are there and no sandbox's business: where the cluster is our own
  /// one, also what its kubelet and its containerd keep of a sandbox.
  List<Path> hostPaths(Id sandbox) {
    Path kubeconfig = Path.of(required("KUBECONFIG"));
    if (!isOurs()) {
      return List.of(kubeconfig);
    }
    return List.of(
        kubeconfig,
        OURS,
        OURS.resolve("kubelet/pods"),
        OURS.resolve("kubelet/pods").resolve(pod(sandbox).orElseThrow().getMetadata().getUid()),
        OURS.resolve("run/containerd.sock"));
  }

  /// Whether it is the one that `./foredeck cluster` makes, and not somebody's.
  static boolean isOurs() {
    return Path.of(required("KUBECONFIG")).startsWith(OURS);
  }

  /// The same, for another process.
  static InetSocketAddress gateway(int port) {
    return new InetSocketAddress(hostAddress(), port);
  }

  KubernetesConfig config(Template template) {
    return config(namespace, gateway(), template);
  }

  static KubernetesConfig config(String namespace, InetSocketAddress gateway, Template template) {
    Map<String, Template> templates = new LinkedHashMap<>();
    templates.put("base", template);
    return new KubernetesConfig(
        namespace,
        templates,
        required("FOREDECK_TEST_AGENT_IMAGE"),
        required("FOREDECK_TEST_FIREWALL_IMAGE"),
        Optional.of(new StrongRuntime("gvisor", true)),
        gateway,
        List.of(HOST_SEEN_BY_PODS),
        Reach.POD_IP,
        Isolation.POD_FIREWALL,
        AgentDelivery.IMAGE_VOLUME);
  }

  /// Sets up the namespace as an administrator does, and a driver on it.
  KubernetesDriver driver(KubernetesConfig config) {
    Guard.install(client, config);
    return unguarded(config);
  }

  KubernetesDriver unguarded(KubernetesConfig config) {
    return new KubernetesDriver(config, Api.client(), tls, Clock.systemUTC(), new SecureRandom());
  }

  static KubernetesConfig with(KubernetesConfig config, Isolation isolation) {
    return with(config, isolation, config.strong(), config.reach(), config.agentDelivery());
  }

  static KubernetesConfig with(KubernetesConfig config, Optional<StrongRuntime> strong) {
    return with(config, config.isolation(), strong, config.reach(), config.agentDelivery());
  }

  static KubernetesConfig with(KubernetesConfig config, Reach reach) {
    return with(config, config.isolation(), config.strong(), reach, config.agentDelivery());
  }

  static KubernetesConfig with(KubernetesConfig config, AgentDelivery agentDelivery) {
    return with(config, config.isolation(), config.strong(), config.reach(), agentDelivery);
  }

  private static KubernetesConfig with(
      KubernetesConfig config,
      Isolation isolation,
      Optional<StrongRuntime> strong,
      Reach reach,
      AgentDelivery agentDelivery) {
    return new KubernetesConfig(
        config.namespace(),
        config.templates(),
        config.agentImage(),
        config.firewallImage(),
        strong,
        config.gateway(),
        config.admit(),
        reach,
        isolation,
        agentDelivery);
  }

  /// A RuntimeClass of this test's own, which goes with it.
  ///
  /// @return its name
  String runtimeClass(String handler) {
    var _ =
        client
            .resource(
                new RuntimeClassBuilder()
                    .withNewMetadata()
                    .withName(namespace)
                    .endMetadata()
                    .withHandler(handler)
                    .build())
            .create();
    return namespace;
  }

  Optional<Pod> pod(Id sandbox) {
    return Optional.ofNullable(
        client.pods().inNamespace(namespace).withName(sandbox.value()).get());
  }

  @Override
  public void close() throws IOException {
    gateway.close();
    try (client) {
      var _ = client.pods().inNamespace(namespace).withGracePeriod(0).delete();
      var _ = client.runtimeClasses().withName(namespace).delete();
      // Nothing in it takes up the node any more: the cluster clears the rest by itself.
      var _ = client.namespaces().withName(namespace).delete();
    }
  }
}
