package dev.foredeck.driver.kubernetes;

import dev.foredeck.core.DeploymentTls;
import dev.foredeck.core.Hashes;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.driver.host.WritablePlaces;
import dev.foredeck.driver.kubernetes.KubernetesConfig.AgentDelivery;
import dev.foredeck.driver.kubernetes.KubernetesConfig.Isolation;
import io.fabric8.kubernetes.api.model.Capabilities;
import io.fabric8.kubernetes.api.model.CapabilitiesBuilder;
import io.fabric8.kubernetes.api.model.Container;
import io.fabric8.kubernetes.api.model.ContainerBuilder;
import io.fabric8.kubernetes.api.model.EmptyDirVolumeSource;
import io.fabric8.kubernetes.api.model.EnvVar;
import io.fabric8.kubernetes.api.model.IntOrString;
import io.fabric8.kubernetes.api.model.LocalObjectReference;
import io.fabric8.kubernetes.api.model.Pod;
import io.fabric8.kubernetes.api.model.PodBuilder;
import io.fabric8.kubernetes.api.model.PodSpecBuilder;
import io.fabric8.kubernetes.api.model.Quantity;
import io.fabric8.kubernetes.api.model.ResourceRequirements;
import io.fabric8.kubernetes.api.model.ResourceRequirementsBuilder;
import io.fabric8.kubernetes.api.model.SecurityContext;
import io.fabric8.kubernetes.api.model.SecurityContextBuilder;
import io.fabric8.kubernetes.api.model.Volume;
import io.fabric8.kubernetes.api.model.VolumeBuilder;
import io.fabric8.kubernetes.api.model.VolumeMount;
import io.fabric8.kubernetes.api.model.VolumeMountBuilder;
import io.fabric8.kubernetes.api.model.networking.v1.NetworkPolicy;
import io.fabric8.kubernetes.api.model.networking.v1.NetworkPolicyBuilder;
import io.fabric8.kubernetes.api.model.networking.v1.NetworkPolicyIngressRule;
import io.fabric8.kubernetes.api.model.networking.v1.NetworkPolicyIngressRuleBuilder;
import io.fabric8.kubernetes.api.model.networking.v1.NetworkPolicyPeer;
import io.fabric8.kubernetes.api.model.networking.v1.NetworkPolicyPeerBuilder;
import io.fabric8.kubernetes.api.model.networking.v1.NetworkPolicyPort;
import io.fabric8.kubernetes.api.model.networking.v1.NetworkPolicyPortBuilder;
import java.time.Clock;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.regex.Pattern;

/// A sandbox's pod: named by the sandbox, made in one write, never changed. Nothing in it is
/// secret: of the sandbox's token it has the hash, of the deployment's certificate the pin.
final class SandboxPod {
  static final String DEPLOYMENT = "foredeck.dev/deployment";
  static final String ROLE = "foredeck.dev/role";
  static final String TENANT = "foredeck.dev/tenant";

  /// Before a user's own label.
  static final String USER_LABEL = "label.foredeck.dev/";

  static final String CONTAINER = "sandbox";
  static final String FIREWALL = "firewall";
  static final String TOKEN_SHA_256 = "FOREDECK_TOKEN_SHA256";

  private static final String AGENT_HOME = "/opt/foredeck/agent";

  /// What the kubelet's file for a container's last words is mounted in. It makes one on the node's
  /// disk for every container, writable for everybody and without a limit. The firewall, which is
  /// root, puts it into a folder that the sandbox's user cannot enter.
  private static final String LAST_WORDS = "/run/foredeck/last-words";

  private static final long LAST_WORDS_BYTES = 64 << 10;
  private static final long USER = 1000;
  private static final long FIREWALL_MEMORY_BYTES = 64L << 20;

  /// What a canary asks of a node is this part of what it may use, for the seconds it takes.
  private static final int CANARY_SHARE = 10;

  /// The bundle, and room for what its file system takes.
  private static final String BUNDLE_BYTES = "256Mi";

  private static final Pattern LABEL_NAME =
      Pattern.compile("[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?");
  private static final Pattern LABEL_VALUE = Pattern.compile("(" + LABEL_NAME + ")?");

  /// What a pod is for: only sandboxes are anybody's but the probe's.
  enum Role {
    SANDBOX,
    CANARY;

    String label() {
      return switch (this) {
        case SANDBOX -> "sandbox";
        case CANARY -> "canary";
      };
    }
  }

  private final KubernetesConfig config;
  private final Role role;
  private final String deployment;
  private final String pin;
  private final Clock clock;

  /// @param deployment whose pods they are, a label's value
  /// @param pin of the deployment's certificate
  SandboxPod(KubernetesConfig config, Role role, String deployment, String pin, Clock clock) {
    this.config = config;
    this.role = role;
    this.deployment = deployment;
    this.pin = pin;
    this.clock = clock;
  }

  /// @throws DriverException.Refused naming what cannot be enforced
  Pod of(LaunchSpec spec) throws DriverException.Refused {
    Template template = config.templates().get(spec.template());
    if (template == null) {
      throw new DriverException.Refused(
          "there is no template '"
              + spec.template()
              + "'; there are: "
              + String.join(", ", config.templates().keySet()));
    }
    WritablePlaces.check(spec.resources(), spec.boundary());
    WritablePlaces places = WritablePlaces.of(spec.boundary());
    Optional<String> runtimeClass = runtimeClass(spec, template);
    boolean gvisor = runtimeClass.isPresent() && isGvisor(runtimeClass.get());
    boolean countsProcesses = gvisor || template.userNamespace();
    if (!countsProcesses && spec.boundary().pids().isPresent()) {
      throw new DriverException.Refused(
          "the policy limits the number of processes (boundary.limits.pids), and sandboxes of the"
              + " template '"
              + spec.template()
              + "' share a user with all others on their node (userNamespace: false), so that none"
              + " can be held to a number of its own: it needs userNamespace: true or gVisor");
    }

    List<Volume> volumes = new ArrayList<>();
    List<VolumeMount> mounts = new ArrayList<>();
    places(spec, template, places, volumes, mounts);
    List<Container> before = new ArrayList<>();
    if (config.isolation() == Isolation.POD_FIREWALL) {
      before.add(firewall(spec, gvisor));
      EmptyDirVolumeSource memory =
          new EmptyDirVolumeSource("Memory", new Quantity(String.valueOf(LAST_WORDS_BYTES)));
      volumes.add(new VolumeBuilder().withName("last-words").withEmptyDir(memory).build());
      mounts.add(mount("last-words", LAST_WORDS, true));
    }
    volumes.add(agent());
    mounts.add(mount("agent", AGENT_HOME, true));
    if (config.agentDelivery() == AgentDelivery.INIT_CONTAINER) {
      before.add(copyOfTheAgent(spec));
    }

    PodSpecBuilder pod =
        new PodSpecBuilder()
            .withRestartPolicy("Never")
            .withAutomountServiceAccountToken(false)
            .withEnableServiceLinks(false)
            .withTerminationGracePeriodSeconds(0L)
            .withActiveDeadlineSeconds(secondsToLive(spec))
            .withDnsPolicy("None")
            // One is required. Nothing listens there: a name is refused at once.
            .withNewDnsConfig()
            .withNameservers("127.0.0.1")
            .endDnsConfig()
            .withNewSecurityContext()
            .withRunAsNonRoot(true)
            .withRunAsUser(USER)
            .withRunAsGroup(USER)
            .withFsGroup(USER)
            .withNewSeccompProfile()
            .withType("RuntimeDefault")
            .endSeccompProfile()
            .endSecurityContext()
            .withNodeSelector(template.nodeSelector())
            .withTolerations(template.tolerations())
            .withImagePullSecrets(
                template.imagePullSecrets().stream().map(LocalObjectReference::new).toList())
            .withInitContainers(before)
            .withContainers(main(spec, template, countsProcesses, mounts))
            .withVolumes(volumes);
    runtimeClass.ifPresent(pod::withRuntimeClassName);
    template.priorityClass().ifPresent(pod::withPriorityClassName);
    if (template.userNamespace() && !gvisor) {
      pod.withHostUsers(false);
    }
    return new PodBuilder()
        .withNewMetadata()
        .withName(spec.sandbox().value())
        .withNamespace(config.namespace())
        .withLabels(labels(spec, template))
        .withAnnotations(template.annotations())
        .endMetadata()
        .withSpec(pod.build())
        .build();
  }

  /// Two deployments may share a cluster: whose something is, its certificate says.
  static String deployment(DeploymentTls tls) {
    return tls.pin().substring(0, 16);
  }

  /// Labels that all of these pods have, and no others.
  Map<String, String> selector() {
    return Map.of(DEPLOYMENT, deployment, ROLE, role.label());
  }

  /// What a cluster must enforce where nothing in the pod does: the gateway and nothing else out,
  /// control planes in.
  NetworkPolicy networkPolicy() {
    NetworkPolicyBuilder policy =
        new NetworkPolicyBuilder()
            .withNewMetadata()
            .withName("foredeck-" + deployment)
            .withNamespace(config.namespace())
            .endMetadata();
    List<NetworkPolicyPeer> admitted =
        config.admit().stream().map(SandboxPod::network).map(SandboxPod::peer).toList();
    String gateway = network(config.gateway().getAddress().getHostAddress());
    // A rule that names nobody would admit everybody.
    List<NetworkPolicyIngressRule> ingress =
        admitted.isEmpty()
            ? List.of()
            : List.of(
                new NetworkPolicyIngressRuleBuilder()
                    .withFrom(admitted)
                    .withPorts(tcp(KubernetesConfig.AGENT_PORT))
                    .build());
    return policy
        .withNewSpec()
        .withNewPodSelector()
        .addToMatchLabels(DEPLOYMENT, deployment)
        .endPodSelector()
        .withPolicyTypes("Ingress", "Egress")
        .withIngress(ingress)
        .addNewEgress()
        .withTo(peer(gateway))
        .withPorts(tcp(config.gateway().getPort()))
        .endEgress()
        .endSpec()
        .build();
  }

  private static NetworkPolicyPeer peer(String network) {
    return new NetworkPolicyPeerBuilder().withNewIpBlock().withCidr(network).endIpBlock().build();
  }

  private static NetworkPolicyPort tcp(int port) {
    return new NetworkPolicyPortBuilder()
        .withProtocol("TCP")
        .withPort(new IntOrString(port))
        .build();
  }

  private static String network(String address) {
    return address.contains("/") ? address : address + "/32";
  }

  /// As the firewall takes it.
  static String gateway(KubernetesConfig config) {
    return config.gateway().getAddress().getHostAddress() + ":" + config.gateway().getPort();
  }

  /// As the firewall takes it.
  static String admit(KubernetesConfig config) {
    return String.join(",", config.admit());
  }

  private Optional<String> runtimeClass(LaunchSpec spec, Template template)
      throws DriverException.Refused {
    return switch (spec.boundary().isolation()) {
      case STANDARD -> template.runtimeClass();
      case STRONG ->
          Optional.of(
              config
                  .strong()
                  .orElseThrow(() ->
                      new DriverException.Refused(
                          "the policy asks for isolation: strong, and this deployment has no"
                              + " RuntimeClass for it (strong.runtimeClass of the templates)"))
                  .runtimeClass());
    };
  }

  /// Whether its network stack and its kernel are its own.
  boolean isGvisor(String runtimeClass) {
    return config
        .strong()
        .filter(s -> s.gvisor() && s.runtimeClass().equals(runtimeClass))
        .isPresent();
  }

  /// A pod outlives its control plane by no more than its time to live.
  private long secondsToLive(LaunchSpec spec) {
    long seconds = Duration.between(clock.instant(), spec.expiresAt()).toSeconds();
    return Math.clamp(seconds, 1, Integer.MAX_VALUE);
  }

  private Map<String, String> labels(LaunchSpec spec, Template template) {
    Map<String, String> labels = new LinkedHashMap<>(template.labels());
    // For people and their tools. What a label cannot hold is left out: nothing is enforced by it.
    spec.labels()
        .forEach((name, value) -> {
          if (LABEL_NAME.matcher(name).matches()
              && LABEL_VALUE.matcher(value).matches()
              && value.length() <= 63) {
            labels.put(USER_LABEL + name, value);
          }
        });
    labels.put("app.kubernetes.io/managed-by", "foredeck");
    labels.putAll(selector());
    spec.tenant().ifPresent(tenant -> labels.put(TENANT, tenant.value()));
    return labels;
  }

  private static void places(
      LaunchSpec spec,
      Template template,
      WritablePlaces places,
      List<Volume> volumes,
      List<VolumeMount> mounts) {
    volumes.add(workspace(spec, template));
    mounts.add(mount("workspace", WritablePlaces.WORKSPACE, !places.has(WritablePlaces.WORKSPACE)));
    // Memory, which counts against the sandbox's limit.
    Quantity size = new Quantity(String.valueOf(temporaryBytes(spec)));
    for (String place : WritablePlaces.OFFERED) {
      if (place.equals(WritablePlaces.WORKSPACE)) {
        continue;
      }
      String name = place.substring(1).replace('/', '-');
      volumes.add(
          new VolumeBuilder()
              .withName(name)
              .withEmptyDir(new EmptyDirVolumeSource("Memory", size))
              .build());
      mounts.add(mount(name, place, !places.has(place)));
    }
  }

  private static long temporaryBytes(LaunchSpec spec) {
    return spec.resources().memoryBytes() / 2;
  }

  /// The most that one file may have. The kubelet puts a file of the node's disk into every
  /// container, for its last words (`/dev/termination-log`), which everybody may write to and
  /// nobody counts. Larger than any file that fits where a sandbox may write, so that there it is
  /// the place that is full.
  static long fileBytes(LaunchSpec spec) {
    return Math.max(spec.resources().diskBytes(), temporaryBytes(spec)) + (1 << 20);
  }

  private static Volume workspace(LaunchSpec spec, Template template) {
    Quantity size = new Quantity(String.valueOf(spec.resources().diskBytes()));
    VolumeBuilder volume = new VolumeBuilder().withName("workspace");
    return switch (template.workspace()) {
      case Template.Workspace.NodeDisk() ->
          volume.withNewEmptyDir().withSizeLimit(size).endEmptyDir().build();
      case Template.Workspace.Memory() ->
          volume.withEmptyDir(new EmptyDirVolumeSource("Memory", size)).build();
      case Template.Workspace.Volume(String storageClass) ->
          volume
              .withNewEphemeral()
              .withNewVolumeClaimTemplate()
              .withNewSpec()
              .withAccessModes("ReadWriteOnce")
              .withStorageClassName(storageClass)
              .withNewResources()
              .addToRequests("storage", size)
              .endResources()
              .endSpec()
              .endVolumeClaimTemplate()
              .endEphemeral()
              .build();
    };
  }

  private static VolumeMount mount(String volume, String path, boolean readOnly) {
    VolumeMountBuilder mount = new VolumeMountBuilder().withName(volume).withMountPath(path);
    return readOnly ? mount.withReadOnly(true).build() : mount.build();
  }

  /// @param countsProcesses whether the limit of processes, which is one of the user's, is the
  ///   sandbox's alone
  private Container main(
      LaunchSpec spec, Template template, boolean countsProcesses, List<VolumeMount> mounts) {
    List<EnvVar> environment = new ArrayList<>();
    environment.add(env("FOREDECK_LISTEN", String.valueOf(KubernetesConfig.AGENT_PORT)));
    environment.add(env("FOREDECK_PIN", pin));
    environment.add(env(TOKEN_SHA_256, Hashes.sha256(spec.token())));
    environment.add(env("FOREDECK_WORKSPACE", WritablePlaces.WORKSPACE));
    environment.add(env("FOREDECK_FILE_BYTES", String.valueOf(fileBytes(spec))));
    if (countsProcesses) {
      environment.add(env("FOREDECK_PIDS", String.valueOf(spec.resources().pids())));
    }
    ContainerBuilder container = new ContainerBuilder();
    if (config.isolation() == Isolation.POD_FIREWALL) {
      container.withTerminationMessagePath(LAST_WORDS + "/sealed/message");
    }
    return container
        .withName(CONTAINER)
        .withImage(template.image())
        .withImagePullPolicy("IfNotPresent")
        .withCommand(AGENT_HOME + "/bin/java", "@" + AGENT_HOME + "/options")
        .withWorkingDir("/")
        .withEnv(environment)
        .withResources(resources(spec.resources().cpuMillis(), spec.resources().memoryBytes()))
        .withSecurityContext(unprivileged())
        .withVolumeMounts(mounts)
        .build();
  }

  private Volume agent() {
    VolumeBuilder volume = new VolumeBuilder().withName("agent");
    return switch (config.agentDelivery()) {
      case IMAGE_VOLUME ->
          volume
              .withNewImage()
              .withReference(config.agentImage())
              .withPullPolicy("IfNotPresent")
              .endImage()
              .build();
      case INIT_CONTAINER ->
          volume.withNewEmptyDir().withSizeLimit(new Quantity(BUNDLE_BYTES)).endEmptyDir().build();
    };
  }

  private Container copyOfTheAgent(LaunchSpec spec) {
    return new ContainerBuilder()
        .withName("agent")
        .withImage(config.agentImage())
        .withImagePullPolicy("IfNotPresent")
        // The image's root holds mount points (/proc, /dev) beside the bundle.
        .withCommand(
            "/bin/busybox",
            "sh",
            "-c",
            "cd / && exec /bin/busybox cp -a bin conf lib release agent.aot options /agent/")
        .withResources(resources(spec.resources().cpuMillis(), FIREWALL_MEMORY_BYTES))
        .withSecurityContext(unprivileged())
        .withVolumeMounts(mount("agent", "/agent", false))
        .build();
  }

  /// Closes the pod's network before anything else of it runs. It alone is root, and ends.
  private Container firewall(LaunchSpec spec, boolean gvisor) {
    Capabilities capabilities =
        new CapabilitiesBuilder()
            .withDrop("ALL")
            .withAdd(gvisor ? List.of("NET_ADMIN", "NET_RAW") : List.of("NET_ADMIN"))
            .build();
    return new ContainerBuilder()
        .withName(FIREWALL)
        .withImage(config.firewallImage())
        // Why it failed is then in the pod's status.
        .withTerminationMessagePolicy("FallbackToLogsOnError")
        .withImagePullPolicy("IfNotPresent")
        .withEnv(
            env("FOREDECK_STACK", gvisor ? "gvisor" : "linux"),
            env("FOREDECK_GATEWAY", gateway(config)),
            env("FOREDECK_AGENT_PORT", String.valueOf(KubernetesConfig.AGENT_PORT)),
            env("FOREDECK_ADMIT", admit(config)))
        .withResources(resources(spec.resources().cpuMillis(), FIREWALL_MEMORY_BYTES))
        .withVolumeMounts(mount("last-words", LAST_WORDS, false))
        .withSecurityContext(
            new SecurityContextBuilder()
                .withRunAsUser(0L)
                .withRunAsGroup(0L)
                .withRunAsNonRoot(false)
                .withAllowPrivilegeEscalation(false)
                .withReadOnlyRootFilesystem(true)
                .withCapabilities(capabilities)
                .build())
        .build();
  }

  private static SecurityContext unprivileged() {
    return new SecurityContextBuilder()
        .withRunAsNonRoot(true)
        .withRunAsUser(USER)
        .withRunAsGroup(USER)
        .withAllowPrivilegeEscalation(false)
        .withReadOnlyRootFilesystem(true)
        .withCapabilities(new CapabilitiesBuilder().withDrop("ALL").build())
        .build();
  }

  /// A sandbox is promised what it may use. A canary must fit in beside what is there already.
  private ResourceRequirements resources(int cpuMillis, long memoryBytes) {
    Map<String, Quantity> limits = amounts(cpuMillis, memoryBytes);
    Map<String, Quantity> requests =
        switch (role) {
          case SANDBOX -> limits;
          case CANARY -> amounts(cpuMillis / CANARY_SHARE, memoryBytes / CANARY_SHARE);
        };
    return new ResourceRequirementsBuilder().withRequests(requests).withLimits(limits).build();
  }

  private static Map<String, Quantity> amounts(int cpuMillis, long memoryBytes) {
    return Map.of(
        "cpu", new Quantity(cpuMillis + "m"),
        "memory", new Quantity(String.valueOf(memoryBytes)));
  }

  private static EnvVar env(String name, String value) {
    return new EnvVar(name, value, null);
  }

  /// The hash of the token that a pod's agent waits for; empty where the pod is not as we make
  /// them.
  static Optional<String> tokenSha256(Pod pod) {
    return pod.getSpec().getContainers().stream()
        .filter(container -> CONTAINER.equals(container.getName()))
        .flatMap(container -> container.getEnv().stream())
        .filter(variable -> TOKEN_SHA_256.equals(variable.getName()))
        .map(EnvVar::getValue)
        .findFirst();
  }
}
