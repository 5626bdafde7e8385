package dev.foredeck.driver.kubernetes;

import dev.foredeck.core.Ids;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.kubernetes.KubernetesConfig.Isolation;
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
import java.util.random.RandomGenerator;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Proves from inside that a pod of ours reaches the gateway and nothing else: two canaries, made
/// as any sandbox, for each kind of pod that the templates can ask for. Whatever answers is a
/// finding.
final class IsolationProbe {
  private static final Logger LOG = LoggerFactory.getLogger(IsolationProbe.class);
  private static final Duration CANARY_LIFE = Duration.ofMinutes(5);
  private static final Duration IN_FORCE = Duration.ofSeconds(10);
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

  /// One sentence for each promise that does not hold.
  List<String> run(Duration timeout) {
    Deadline deadline = Deadline.in(timeout);
    List<String> findings = new ArrayList<>();
    try {
      removeOldCanaries(deadline);
      // One template for each kind of runtime: the rules are not the same in all of them.
      Map<Optional<String>, String> kinds = new LinkedHashMap<>();
      config.templates().forEach((name, t) -> kinds.putIfAbsent(t.runtimeClass(), name));
      for (String template : kinds.values()) {
        knock(template, deadline, findings);
      }
    } catch (DriverException e) {
      findings.add("whether sandboxes are isolated could not be found out: " + e.getMessage());
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

  private void knock(String template, Deadline deadline, List<String> findings)
      throws DriverException {
    try (Canary one = canary(template);
        Canary two = canary(template)) {
      if (config.isolation() == Isolation.POD_FIREWALL) {
        admissionFinding(one, deadline).ifPresent(findings::add);
      }
      one.launch(deadline);
      two.launch(deadline);
      Pod first = canaries.pod(one.spec().sandbox());
      Pod second = canaries.pod(two.spec().sandbox());
      String own = "tcp/127.0.0.1/" + KubernetesConfig.AGENT_PORT;
      String gateway =
          "tcp/"
              + config.gateway().getAddress().getHostAddress()
              + "/"
              + config.gateway().getPort();
      Map<String, String> forbidden = forbidden(first, second, two.knock(List.of(), deadline));
      List<String> targets = new ArrayList<>(List.of(own, gateway));
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
      forbidden.forEach((target, what) -> {
        if (!said.contains("silent " + target)) {
          findings.add(
              "a sandbox of template " + template + " reaches " + what + " (" + target + ")");
        }
      });
    }
  }

  private Canary canary(String template) {
    Ids ids = new Ids(clock, random);
    return new Canary(
        canaries,
        ids.sandbox(),
        ids.tenant(),
        Long.toHexString(random.nextLong()) + Long.toHexString(random.nextLong()),
        template,
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
