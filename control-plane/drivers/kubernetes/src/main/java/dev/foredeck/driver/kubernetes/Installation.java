package dev.foredeck.driver.kubernetes;

import dev.foredeck.core.DeploymentTls;
import dev.foredeck.core.Hashes;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.protocol.CertificatePin;
import io.fabric8.kubernetes.api.model.HasMetadata;
import io.fabric8.kubernetes.api.model.Namespace;
import io.fabric8.kubernetes.api.model.NamespaceBuilder;
import io.fabric8.kubernetes.api.model.Pod;
import io.fabric8.kubernetes.api.model.SecretBuilder;
import io.fabric8.kubernetes.api.model.apps.Deployment;
import io.fabric8.kubernetes.api.model.apps.DeploymentBuilder;
import io.fabric8.kubernetes.api.model.apps.DeploymentStatus;
import io.fabric8.kubernetes.client.KubernetesClient;
import io.fabric8.kubernetes.client.KubernetesClientException;
import io.fabric8.kubernetes.client.readiness.Readiness;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.StringJoiner;
import java.util.TreeMap;
import java.util.stream.Stream;
import javax.net.ssl.SSLSocket;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// The egress gateway, set up in the cluster for a control plane that has an administrator's rights
/// there: the manifests of `deploy/kubernetes`, with this deployment's keys and image. Again and
/// again the same: a gateway that runs as it should is left alone.
///
/// A temporary one can be removed again: its namespaces, with every sandbox in them.
public final class Installation {
  private static final Logger LOG = LoggerFactory.getLogger(Installation.class);
  private static final String GATEWAY = "foredeck-gateway";
  private static final String FIELD_MANAGER = "foredeck-install";

  /// Whose namespace it is to remove.
  private static final String TEMPORARY = "foredeck.dev/temporary";

  /// Keys that changed make another pod.
  private static final String KEYS = "foredeck.dev/keys";

  private static final Duration ROLL_OUT = Duration.ofSeconds(90);
  private static final Duration REMOVAL = Duration.ofSeconds(45);
  private static final Duration REACHED = Duration.ofSeconds(30);
  private static final int LOOK_MILLIS = 200;
  private static final int SERVICE_CONNECT_MILLIS = 1_000;
  private static final int POD_CONNECT_MILLIS = 5_000;
  private static final int BRIDGES_PORT = 3129;
  private static final int CONTROL_PORT = 3130;
  private static final int CONFLICT = 409;

  private final Spec spec;
  private final String deployment;
  private final InetAddress address;

  /// Where no route leads to the gateway.
  private final Optional<GatewayForward> forward;

  /// What to set up.
  ///
  /// @param namespace of the sandboxes
  /// @param gatewayNamespace another one: whatever runs in the sandboxes' has its network closed
  /// @param templates the text of the file of templates ([Templates]), which names the image
  /// @param linkKey what the gateway and its control planes share: a secret
  /// @param pins of the gateway: host or host:port, to address and port
  /// @param reach how this control plane gets to the gateway's control port
  /// @param temporary whether both namespaces are made for this, and go with it
  public record Spec(
      String namespace,
      String gatewayNamespace,
      String templates,
      DeploymentTls tls,
      String linkKey,
      Map<String, InetSocketAddress> pins,
      KubernetesConfig.Reach reach,
      boolean temporary) {
    public Spec {
      pins = Map.copyOf(pins);
    }

    @Override
    public String toString() {
      return "Installation.Spec[" + namespace + ", " + gatewayNamespace + "]";
    }
  }

  private Installation(
      Spec spec, String deployment, InetAddress address, Optional<GatewayForward> forward) {
    this.spec = spec;
    this.deployment = deployment;
    this.address = address;
    this.forward = forward;
  }

  /// Returns when the gateway serves.
  ///
  /// @throws IllegalArgumentException when the templates cannot be used
  /// @throws IllegalStateException when the cluster does not answer or refuses, or the gateway does
  ///   not come up: why, for a person
  public static Installation of(Spec spec) {
    String image =
        Templates.parse(spec.templates())
            .gatewayImage()
            .orElseThrow(() ->
                new IllegalArgumentException("gatewayImage: it must be text, to set up a gateway"));
    String deployment = SandboxPod.deployment(spec.tls());
    boolean made = false;
    Optional<GatewayForward> forward =
        switch (spec.reach()) {
          case POD_IP -> Optional.empty();
          case PORT_FORWARD ->
              Optional.of(
                  new GatewayForward(Api.client(), spec.gatewayNamespace(), GATEWAY, CONTROL_PORT));
        };
    try (KubernetesClient client = Api.client()) {
      if (spec.temporary()) {
        claim(client, spec.namespace(), deployment);
        claim(client, spec.gatewayNamespace(), deployment);
      }
      refuseAnothers(client, spec, deployment);
      apply(client, spec, image, deployment);
      Pod pod = awaitGateway(client, spec.gatewayNamespace());
      InetAddress address = reachable(client, spec, pod, forward);
      made = true;
      return new Installation(spec, deployment, address, forward);
    } catch (KubernetesClientException e) {
      throw new IllegalStateException(
          "the gateway cannot be set up in the cluster: " + Api.said(e), e);
    } catch (DriverException e) {
      throw new IllegalStateException(
          "the gateway in the namespace "
              + spec.gatewayNamespace()
              + " does not come up: "
              + e.getMessage(),
          e);
    } finally {
      if (!made) {
        forward.ifPresent(GatewayForward::close);
        if (spec.temporary()) {
          boolean _ = remove(spec, deployment);
        }
      }
    }
  }

  /// Where sandboxes reach the gateway.
  public InetSocketAddress bridges() {
    return new InetSocketAddress(address, BRIDGES_PORT);
  }

  /// Where this control plane reaches it: to be asked before each connection, since a forwarded
  /// port serves one.
  ///
  /// @throws IOException when no port can be forwarded now
  public InetSocketAddress control() throws IOException {
    return forward.isPresent()
        ? forward.get().open()
        : new InetSocketAddress(address, CONTROL_PORT);
  }

  /// Only what was made for this may be removed with it.
  private static void claim(KubernetesClient client, String name, String deployment) {
    Namespace made =
        new NamespaceBuilder()
            .withNewMetadata()
            .withName(name)
            .addToLabels(TEMPORARY, deployment)
            .endMetadata()
            .build();
    try {
      var _ = client.resource(made).create();
    } catch (KubernetesClientException e) {
      if (e.getCode() != CONFLICT) {
        throw e;
      }
      if (!isClaimed(client, name, deployment)) {
        throw new IllegalStateException(
            "the namespace "
                + name
                + " is there already: a temporary installation needs one of its own"
                + " (FOREDECK_KUBERNETES_NAMESPACE, FOREDECK_KUBERNETES_GATEWAY_NAMESPACE)",
            e);
      }
    }
  }

  private static boolean isClaimed(KubernetesClient client, String name, String deployment) {
    return Optional.ofNullable(client.namespaces().withName(name).get())
        .map(found -> found.getMetadata().getLabels())
        .filter(labels -> deployment.equals(labels.get(TEMPORARY)))
        .isPresent();
  }

  /// Two data folders are two deployments: the second would take the sandboxes of the first off the
  /// web.
  private static void refuseAnothers(KubernetesClient client, Spec spec, String deployment) {
    Deployment there =
        client.apps().deployments().inNamespace(spec.gatewayNamespace()).withName(GATEWAY).get();
    if (there == null) {
      return;
    }
    String whose =
        Objects.requireNonNullElse(there.getMetadata().getAnnotations(), Map.<String, String>of())
            .get(SandboxPod.DEPLOYMENT);
    if (!deployment.equals(whose)) {
      throw new IllegalStateException(
          "the namespace "
              + spec.gatewayNamespace()
              + " has the gateway of another deployment (another data folder): name another one"
              + " (FOREDECK_KUBERNETES_GATEWAY_NAMESPACE), or remove it: kubectl delete namespace "
              + spec.gatewayNamespace());
    }
  }

  private static void apply(KubernetesClient client, Spec spec, String image, String deployment) {
    List<HasMetadata> parts = new ArrayList<>(manifest(client, "namespace.yaml"));
    parts.forEach(part -> part.getMetadata().setName(spec.gatewayNamespace()));
    String pem = spec.tls().toPem();
    List<HasMetadata> inside = new ArrayList<>();
    inside.add(
        new SecretBuilder()
            .withNewMetadata()
            .withName(GATEWAY)
            .endMetadata()
            .addToData("deployment.pem", base64(pem))
            .addToData("gateway.key", base64(spec.linkKey()))
            .build());
    for (HasMetadata part : manifest(client, "gateway.yaml")) {
      inside.add(
          part instanceof Deployment gateway
              ? ours(
                  gateway,
                  image,
                  pins(spec.pins()),
                  deployment,
                  Hashes.sha256(pem + spec.linkKey()))
              : part);
    }
    inside.forEach(part -> part.getMetadata().setNamespace(spec.gatewayNamespace()));
    parts.addAll(inside);
    for (HasMetadata part : parts) {
      var _ = client.resource(part).fieldManager(FIELD_MANAGER).forceConflicts().serverSideApply();
    }
  }

  private static List<HasMetadata> manifest(KubernetesClient client, String name) {
    try (InputStream manifest =
        Objects.requireNonNull(Installation.class.getResourceAsStream(name), name)) {
      return client.load(manifest).items();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static Deployment ours(
      Deployment gateway, String image, String pins, String deployment, String keys) {
    DeploymentBuilder builder =
        new DeploymentBuilder(gateway)
            .editMetadata()
            .addToAnnotations(SandboxPod.DEPLOYMENT, deployment)
            .endMetadata()
            .editSpec()
            .editTemplate()
            .editMetadata()
            .addToAnnotations(KEYS, keys)
            .endMetadata()
            .editSpec()
            .editFirstContainer()
            .withImage(image)
            .endContainer()
            .endSpec()
            .endTemplate()
            .endSpec();
    if (!pins.isBlank()) {
      builder
          .editSpec()
          .editTemplate()
          .editSpec()
          .editFirstContainer()
          .addNewEnv()
          .withName("FOREDECK_EGRESS_PINS")
          .withValue(pins)
          .endEnv()
          .endContainer()
          .endSpec()
          .endTemplate()
          .endSpec();
    }
    return builder.build();
  }

  /// In one order: a pod is replaced when its description changes.
  private static String pins(Map<String, InetSocketAddress> pins) {
    StringJoiner text = new StringJoiner(",");
    new TreeMap<>(pins)
        .forEach((host, to) -> {
          String address = to.getAddress().getHostAddress();
          text.add(
              host
                  + "="
                  + (address.contains(":") ? "[" + address + "]" : address)
                  + ":"
                  + to.getPort());
        });
    return text.toString();
  }

  private static String base64(String text) {
    return Base64.getEncoder().encodeToString(text.getBytes(StandardCharsets.UTF_8));
  }

  private static Pod awaitGateway(KubernetesClient client, String namespace)
      throws DriverException {
    Deadline deadline = Deadline.in(ROLL_OUT);
    while (true) {
      boolean rolledOut =
          isRolledOut(client.apps().deployments().inNamespace(namespace).withName(GATEWAY).get());
      Optional<Pod> newest = Optional.empty();
      for (Pod pod :
          client
              .pods()
              .inNamespace(namespace)
              .withLabel("app.kubernetes.io/name", GATEWAY)
              .list()
              .getItems()) {
        if (pod.getMetadata().getDeletionTimestamp() != null) {
          continue;
        }
        if (rolledOut && Readiness.isPodReady(pod)) {
          return pod;
        }
        newest = Optional.of(pod);
      }
      Optional<DriverException> obstacle = newest.flatMap(PodView::obstacle);
      if (obstacle.isPresent()) {
        throw obstacle.get();
      }
      if (deadline.passed()) {
        throw newest
            .map(pod -> PodView.late(pod, Api.warnings(client, pod)))
            .orElseGet(() -> new DriverException.Failed("the cluster made no pod for it"));
      }
      pause();
    }
  }

  private static void pause() throws DriverException.Failed {
    try {
      Thread.sleep(LOOK_MILLIS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new DriverException.Failed("interrupted while it started", e);
    }
  }

  private static boolean isRolledOut(Deployment deployment) {
    DeploymentStatus status = deployment.getStatus();
    return status != null
        && Objects.equals(status.getObservedGeneration(), deployment.getMetadata().getGeneration())
        && Objects.equals(status.getReplicas(), 1)
        && Objects.equals(status.getUpdatedReplicas(), 1)
        && Objects.equals(status.getReadyReplicas(), 1);
  }

  /// Where it is, for sandboxes: its service's address, which outlives a pod, unless only the pod's
  /// own answers here.
  private static InetAddress reachable(
      KubernetesClient client, Spec spec, Pod pod, Optional<GatewayForward> forward)
      throws DriverException.Failed {
    CertificatePin pin = CertificatePin.of(spec.tls().pin());
    InetAddress service =
        InetAddress.ofLiteral(
            client
                .services()
                .inNamespace(spec.gatewayNamespace())
                .withName(GATEWAY)
                .get()
                .getSpec()
                .getClusterIP());
    InetAddress own = InetAddress.ofLiteral(pod.getStatus().getPodIP());
    // A node that is busy may be slow to begin: its pod is ready before it has done a handshake.
    Deadline deadline = Deadline.in(REACHED);
    if (forward.isPresent()) {
      awaitForward(pin, forward.get(), deadline);
    }
    while (true) {
      Optional<IOException> noService = silence(pin, control(service), SERVICE_CONNECT_MILLIS);
      if (noService.isEmpty()) {
        return service;
      }
      Optional<IOException> noPod = silence(pin, control(own), POD_CONNECT_MILLIS);
      if (noPod.isEmpty()) {
        LOG.info(
            "the gateway's service at {} does not answer here, its pod at {} does: when the pod is"
                + " replaced, restart the control plane",
            service.getHostAddress(),
            own.getHostAddress());
        return own;
      }
      if (forward.isPresent()) {
        // No route from here: whether sandboxes get there is seen by the probe's canaries.
        return service;
      }
      if (deadline.passed()) {
        throw new DriverException.Failed(
            "it runs, and its control port "
                + CONTROL_PORT
                + " answers this host neither at "
                + service.getHostAddress()
                + " ("
                + noService.get().getMessage()
                + ") nor at "
                + own.getHostAddress()
                + " ("
                + noPod.get().getMessage()
                + "): run the control plane in the cluster or on a host that routes to pods, reach"
                + " it through the API server (FOREDECK_KUBERNETES_REACH=port-forward), or make the"
                + " gateway reachable and name it (FOREDECK_GATEWAY, FOREDECK_KUBERNETES_GATEWAY)");
      }
      pause();
    }
  }

  private static InetSocketAddress control(InetAddress address) {
    return new InetSocketAddress(address, CONTROL_PORT);
  }

  private static void awaitForward(CertificatePin pin, GatewayForward forward, Deadline deadline)
      throws DriverException.Failed {
    while (true) {
      Optional<IOException> silence;
      try {
        silence = silence(pin, forward.open(), POD_CONNECT_MILLIS);
      } catch (IOException e) {
        silence = Optional.of(e);
      }
      if (silence.isEmpty()) {
        return;
      }
      if (deadline.passed()) {
        throw new DriverException.Failed(
            "it runs, and the API server does not lead on to its control port "
                + CONTROL_PORT
                + ": "
                + silence.get().getMessage(),
            silence.get());
      }
      pause();
    }
  }

  /// Why our gateway is not there; empty where it is. Something on the way may take a connection to
  /// anywhere, so this goes as far as its certificate.
  private static Optional<IOException> silence(
      CertificatePin pin, InetSocketAddress address, int millis) {
    try (Socket socket = new Socket()) {
      socket.connect(address, millis);
      socket.setSoTimeout(millis);
      try (SSLSocket tls = pin.over(socket)) {
        tls.startHandshake();
        return Optional.empty();
      }
    } catch (IOException e) {
      return Optional.of(e);
    }
  }

  /// Ends a forwarded port, removes what is temporary, and waits until it is gone.
  ///
  /// @return whether it is; true where nothing is temporary
  public boolean remove() {
    forward.ifPresent(GatewayForward::close);
    return !spec.temporary() || remove(spec, deployment);
  }

  private static boolean remove(Spec spec, String deployment) {
    Deadline deadline = Deadline.in(REMOVAL);
    try (KubernetesClient client = Api.client()) {
      List<String> ours =
          Stream.of(spec.namespace(), spec.gatewayNamespace())
              .filter(name -> isClaimed(client, name, deployment))
              .toList();
      for (String name : ours) {
        // A pod's grace would hold its namespace up.
        var _ = client.pods().inNamespace(name).withGracePeriod(0).delete();
        var _ = client.namespaces().withName(name).delete();
      }
      while (ours.stream().anyMatch(name -> client.namespaces().withName(name).get() != null)) {
        if (deadline.passed()) {
          LOG.error("the cluster is still removing the namespaces {}", ours);
          return false;
        }
        Thread.sleep(LOOK_MILLIS);
      }
      return true;
    } catch (KubernetesClientException e) {
      LOG.error(
          "the namespaces {} and {} may be left in the cluster: {}",
          spec.namespace(),
          spec.gatewayNamespace(),
          Api.said(e));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    return false;
  }
}
