package dev.foredeck.driver.kubernetes;

import dev.foredeck.core.Ids;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.policy.Isolation;
import io.fabric8.kubernetes.api.model.Node;
import io.fabric8.kubernetes.api.model.NodeSystemInfo;
import io.fabric8.kubernetes.api.model.Pod;
import io.fabric8.kubernetes.api.model.PodBuilder;
import io.fabric8.kubernetes.api.model.Service;
import io.fabric8.kubernetes.client.KubernetesClient;
import io.fabric8.kubernetes.client.KubernetesClientException;
import java.net.InetAddress;
import java.net.URL;
import java.net.UnknownHostException;
import java.time.Clock;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.random.RandomGenerator;
import java.util.regex.Pattern;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Proves from inside that a pod of ours reaches the gateway and nothing else: two canaries, made
/// as any sandbox, for each kind of pod that the templates can ask for. Whatever answers is a
/// finding.
final class IsolationProbe {
  private static final Logger LOG = LoggerFactory.getLogger(IsolationProbe.class);
  private static final Duration CANARY_LIFE = Duration.ofMinutes(2);
  private static final Duration IN_FORCE = Duration.ofSeconds(10);
  private static final String VERSION = "file/proc/version";
  private static final String BOOT_ID = "file/proc/sys/kernel/random/boot_id";
  private static final String UID_MAP = "file/proc/self/uid_map";

  /// What gVisor's kernel calls itself, in releases before 2026 by a date that never changes.
  private static final Pattern GVISOR =
      Pattern.compile("gvisor|^Linux version 4\\.4\\.0 .*Jan 10 15:06:54 PST 2016");

  private static final String METADATA = "169.254.169.254";
  private static final String ELSEWHERE = "1.1.1.1";
  private static final int KUBELET_PORT = 10_250;
  private static final int DNS_PORT = 53;
  private static final int FORBIDDEN = 403;
  private static final int INVALID = 422;

  private final KubernetesConfig config;
  private final KubernetesClient client;
  private final KubernetesDriver canaries;
  private final SandboxPod pods;
  private final Clock clock;
  private final RandomGenerator random;

  /// @param canaries makes pods that are no sandboxes of the deployment's
  IsolationProbe(
      KubernetesConfig config,
      KubernetesClient client,
      KubernetesDriver canaries,
      SandboxPod pods,
      Clock clock,
      RandomGenerator random) {
    this.config = config;
    this.client = client;
    this.canaries = canaries;
    this.pods = pods;
    this.clock = clock;
    this.random = random;
  }

  /// What makes two templates' pods differ in what holds them in.
  private record Kind(Optional<String> runtimeClass, boolean userNamespace) {}

  /// One sentence for each promise that does not hold.
  ///
  /// @throws DriverException.Full where there is no room to find out
  List<String> run(Duration timeout) throws DriverException.Full {
    Deadline deadline = Deadline.in(timeout);
    return findings(
        "whether sandboxes are isolated could not be found out",
        findings -> {
          removeOldCanaries(deadline);
          Map<Kind, String> kinds = new LinkedHashMap<>();
          config
              .templates()
              .forEach((name, t) ->
                  kinds.putIfAbsent(new Kind(t.runtimeClass(), t.userNamespace()), name));
          for (String template : kinds.values()) {
            knock(template, Isolation.STANDARD, deadline, findings);
          }
        });
  }

  /// The same of `boundary.isolation: strong`: whether it is what it says, and as closed as any
  /// other.
  ///
  /// @throws DriverException.Full where there is no room to find out
  List<String> runStrong(Duration timeout) throws DriverException.Full {
    Deadline deadline = Deadline.in(timeout);
    if (config.strong().isEmpty()) {
      return List.of(
          "this deployment has no RuntimeClass for it (strong.runtimeClass of the templates).");
    }
    if (config.reach() == KubernetesConfig.Reach.PORT_FORWARD && config.strong().get().gvisor()) {
      return List.of(
          "the API server's port-forward leads to no gVisor pod"
              + " (FOREDECK_KUBERNETES_REACH=pod-ip does).");
    }
    return findings(
        "whether it holds could not be found out",
        findings -> {
          String template = config.templates().keySet().iterator().next();
          knock(template, Isolation.STRONG, deadline, findings);
        });
  }

  private interface Search {
    void run(List<String> findings) throws DriverException;
  }

  private static List<String> findings(String failed, Search search) throws DriverException.Full {
    List<String> findings = new ArrayList<>();
    try {
      search.run(findings);
    } catch (DriverException.Full e) {
      throw e;
    } catch (DriverException e) {
      findings.add(failed + ": " + e.getMessage());
    }
    return findings;
  }

  private void removeOldCanaries(Deadline deadline) throws DriverException {
    for (BackendState old : canaries.list(left(deadline))) {
      if (old.status() == Status.EXITED) {
        canaries.destroy(old.sandbox(), left(deadline));
      }
    }
  }

  private void knock(String template, Isolation isolation, Deadline deadline, List<String> findings)
      throws DriverException {
    try (Canary one = canary(template, isolation);
        Canary two = canary(template, isolation)) {
      if (config.isolation() == KubernetesConfig.Isolation.POD_FIREWALL) {
        admissionFinding(one, deadline).ifPresent(findings::add);
      }
      launch(List.of(one, two), deadline);
      Pod first = canaries.pod(one.spec().sandbox());
      Pod second = canaries.pod(two.spec().sandbox());
      String own = "tcp/127.0.0.1/" + KubernetesConfig.AGENT_PORT;
      String gateway =
          "tcp/"
              + config.gateway().getAddress().getHostAddress()
              + "/"
              + config.gateway().getPort();
      Map<String, String> forbidden = forbidden(first, second, two.knock(List.of(), deadline));
      List<String> targets = new ArrayList<>(List.of(own, gateway, VERSION, BOOT_ID, UID_MAP));
      targets.addAll(forbidden.keySet());
      List<String> said = one.knock(targets, deadline);
      LOG.debug("the canary of {} said {}", template, said);
      // What is to answer shows that silence means something.
      if (!said.contains("answers " + own)) {
        findings.add("the canary of template " + template + " cannot knock, so it proves nothing");
      }
      if (!said.contains("answers " + gateway)) {
        findings.add(
            "the egress gateway at "
                + gateway.substring(4).replace('/', ':')
                + " does not answer from a sandbox of template "
                + template);
      }
      // As we ask for it: the pod that came of it may not say so.
      boolean namespace = Boolean.FALSE.equals(pods.of(one.spec()).getSpec().getHostUsers());
      usersFinding(template, namespace, said).ifPresent(findings::add);
      if (isolation == Isolation.STRONG) {
        kernelFinding(first, said).ifPresent(findings::add);
      }
      forbidden.forEach((target, what) -> {
        if (!said.contains("silent " + target)) {
          findings.add(
              "a sandbox of template " + template + " reaches " + what + " (" + target + ")");
        }
      });
    }
  }

  /// All at once: each takes the cluster some seconds.
  private static void launch(List<Canary> every, Deadline deadline) throws DriverException {
    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<Future<Optional<DriverException>>> launches = new ArrayList<>();
      for (Canary canary : every) {
        launches.add(
            threads.submit(() -> {
              try {
                canary.launch(deadline);
                return Optional.empty();
              } catch (DriverException e) {
                return Optional.of(e);
              }
            }));
      }
      for (Future<Optional<DriverException>> launch : launches) {
        Optional<DriverException> failure = launch.get();
        if (failure.isPresent()) {
          throw failure.get();
        }
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new DriverException.Failed("interrupted while canaries were launched", e);
    } catch (ExecutionException e) {
      throw new IllegalStateException("a fault of the control plane", e);
    }
  }

  private static String holds(List<String> said, String file) {
    String begin = "holds " + file + " ";
    return said.stream()
        .filter(line -> line.startsWith(begin))
        .map(line -> line.substring(begin.length()))
        .findFirst()
        .orElse("");
  }

  /// A cluster that knows no user namespaces drops the wish for one in silence. Processes are
  /// counted by user, so that sandboxes without one would be held to one number together.
  private static Optional<String> usersFinding(String template, boolean wanted, List<String> said) {
    if (!wanted) {
      return Optional.empty();
    }
    String map = holds(said, UID_MAP);
    return map.matches("0 [1-9][0-9]* [0-9]+")
        ? Optional.empty()
        : Optional.of(
            "a sandbox of template "
                + template
                + " has no user namespace of its own (its map of users is '"
                + PodView.text(map)
                + "'): its processes cannot be counted apart from others' on its node"
                + " (userNamespace: false makes do without)");
  }

  /// That a kernel of their own serves these sandboxes.
  private Optional<String> kernelFinding(Pod pod, List<String> said) throws DriverException.Failed {
    KubernetesConfig.StrongRuntime strong = config.strong().orElseThrow();
    String name = "RuntimeClass " + strong.runtimeClass();
    String version = holds(said, VERSION);
    String boot = holds(said, BOOT_ID);
    if (version.isEmpty() || boot.isEmpty()) {
      return Optional.of("a sandbox of " + name + " does not say which kernel it runs on.");
    }
    NodeSystemInfo node = node(pod.getSpec().getNodeName());
    if (boot.equals(node.getBootID())
        || version.startsWith("Linux version " + node.getKernelVersion() + " ")) {
      return Optional.of("a sandbox of " + name + " runs on its node's kernel: " + version);
    }
    if (strong.gvisor() && !GVISOR.matcher(version).find()) {
      return Optional.of(
          "a sandbox of " + name + " does not run on gVisor, but on another kernel: " + version);
    }
    return Optional.empty();
  }

  private NodeSystemInfo node(String name) throws DriverException.Failed {
    try {
      Node node = client.nodes().withName(name).get();
      if (node == null) {
        throw new DriverException.Failed("the cluster does not know the node " + name);
      }
      return node.getStatus().getNodeInfo();
    } catch (KubernetesClientException e) {
      throw new DriverException.Failed(
          "which kernel the node " + name + " has cannot be read: " + Api.said(e), e);
    }
  }

  private Canary canary(String template, Isolation isolation) {
    Ids ids = new Ids(clock, random);
    return new Canary(
        canaries,
        ids.sandbox(),
        ids.tenant(),
        Long.toHexString(random.nextLong()) + Long.toHexString(random.nextLong()),
        template,
        isolation,
        clock.instant().plus(CANARY_LIFE));
  }

  /// A pod without the firewall must not get in: whoever may make pods chooses their containers.
  private Optional<String> admissionFinding(Canary canary, Deadline deadline)
      throws DriverException {
    Pod open =
        new PodBuilder(pods.of(canary.spec()))
            .editSpec()
            .withInitContainers(List.of())
            .endSpec()
            .build();
    // One that was set up a moment ago is not in force yet.
    Deadline inForce = deadline.atMost(IN_FORCE);
    while (isAdmitted(open, deadline)) {
      if (inForce.passed()) {
        return Optional.of(
            "the cluster admits pods without the firewall to the namespace "
                + config.namespace()
                + ": its admission policy is missing (FOREDECK_KUBERNETES_INSTALL=true sets it"
                + " up)");
      }
      deadline.pause("see the admission policy in force");
    }
    return Optional.empty();
  }

  private boolean isAdmitted(Pod pod, Deadline deadline) throws DriverException.Failed {
    try {
      Pod _ = Api.within(client, deadline).resource(pod).dryRun().create();
      return true;
    } catch (KubernetesClientException e) {
      if (e.getCode() == FORBIDDEN || e.getCode() == INVALID) {
        return false;
      }
      throw new DriverException.Failed("the API server does not answer: " + Api.said(e), e);
    }
  }

  /// What must not answer, and how to call it.
  private Map<String, String> forbidden(Pod first, Pod second, List<String> addresses) {
    Map<String, String> targets = new LinkedHashMap<>();
    for (String address : addresses) {
      targets.put("tcp/" + address + "/" + KubernetesConfig.AGENT_PORT, "another sandbox");
    }
    targets.put(
        "tcp/" + second.getStatus().getPodIP() + "/" + KubernetesConfig.AGENT_PORT,
        "another sandbox");
    String node = first.getStatus().getHostIP();
    targets.put("tcp/" + node + "/" + KUBELET_PORT, "the kubelet");
    targets.put("tcp/" + node + "/" + DNS_PORT, "a name server on its node");
    targets.put("udp/" + node + "/" + DNS_PORT, "a name server on its node");
    URL api = client.getMasterUrl();
    int port = api.getPort() < 0 ? api.getDefaultPort() : api.getPort();
    try {
      for (InetAddress address : InetAddress.getAllByName(api.getHost())) {
        targets.put("tcp/" + address.getHostAddress() + "/" + port, "the API server");
      }
    } catch (UnknownHostException _) {
      // Reached through a name that only a proxy knows: its service's address is tried below.
    }
    service("default", "kubernetes")
        .ifPresent(address -> targets.put("tcp/" + address + "/443", "the API server's service"));
    service("kube-system", "kube-dns")
        .ifPresent(address -> {
          targets.put("udp/" + address + "/" + DNS_PORT, "the cluster's name server");
          targets.put("tcp/" + address + "/" + DNS_PORT, "the cluster's name server");
        });
    targets.put("tcp/" + METADATA + "/80", "the metadata service");
    targets.put("tcp/" + ELSEWHERE + "/443", "an address elsewhere");
    targets.put("udp/" + ELSEWHERE + "/" + DNS_PORT, "a name server elsewhere");
    return targets;
  }

  /// Empty where there is none, or where we may not ask.
  private Optional<String> service(String namespace, String name) {
    try {
      Service service = client.services().inNamespace(namespace).withName(name).get();
      return Optional.ofNullable(service)
          .map(s -> s.getSpec().getClusterIP())
          .filter(address -> !address.isEmpty() && !address.equals("None"));
    } catch (KubernetesClientException e) {
      LOG.debug("the service {} cannot be read", name, e);
      return Optional.empty();
    }
  }

  private static Duration left(Deadline deadline) {
    return Duration.ofNanos(Math.max(1, deadline.remainingNanos()));
  }
}
