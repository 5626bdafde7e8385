package dev.foredeck.driver.kubernetes;

import dev.foredeck.core.DeploymentTls;
import dev.foredeck.core.Hashes;
import dev.foredeck.core.Id;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.core.egress.EgressPath;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.kubernetes.KubernetesConfig.Isolation;
import dev.foredeck.protocol.Message;
import io.fabric8.kubernetes.api.model.Pod;
import io.fabric8.kubernetes.client.KubernetesClient;
import io.fabric8.kubernetes.client.KubernetesClientException;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Clock;
import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import java.util.random.RandomGenerator;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Sandboxes as pods: one pod each, applied once and deleted once. What it knows of them comes from
/// a watch, so that live sandboxes go on while the API server is away.
///
/// Threading: every method from any thread. It keeps nothing that the cluster does not: after a
/// crash, a new one reads the same pods.
public final class KubernetesDriver implements Driver {
  private static final Logger LOG = LoggerFactory.getLogger(KubernetesDriver.class);
  private static final String FIELD_MANAGER = "foredeck";
  private static final int FORBIDDEN = 403;
  private static final int NOT_FOUND = 404;
  private static final int INVALID = 422;
  private static final int BAD_REQUEST = 400;

  /// For pods that are going to be gone, and for the scheduler to look again: it does so a second
  /// or two after a pod has gone.
  private static final Duration ROOM = Duration.ofSeconds(4);

  /// Between two tries to reach an agent, each twice the one before: one that hangs up on purpose
  /// must not keep us, or the API server, busy.
  private static final long LEAST_PAUSE_MILLIS = 4;

  private static final long MOST_PAUSE_MILLIS = 250;

  /// For what the cluster says of a pod whose time is over already.
  private static final Duration WARNINGS = Duration.ofSeconds(2);

  private final KubernetesConfig config;
  private final KubernetesClient client;
  private final DeploymentTls tls;
  private final Clock clock;
  private final RandomGenerator random;
  private final SandboxPod.Role role;
  private final SandboxPod pods;
  private final Pods seen;
  private final AgentDoor door;
  private final Routes routes;
  private final WriteRate writes = new WriteRate();

  /// Empty where strong isolation was proven.
  private volatile String strongRefusal = "the driver has not been probed";

  /// What the last probe's canaries found no room for. A control plane that starts again in a full
  /// cluster has sandboxes to look after all the same: what is new waits for the proof.
  private enum Unproven {
    NOTHING,
    STRONG,
    EVERYTHING;

    boolean concerns(boolean strong) {
      return switch (this) {
        case NOTHING -> false;
        case STRONG -> strong;
        case EVERYTHING -> true;
      };
    }
  }

  private final ReentrantLock proving = new ReentrantLock();
  private volatile Unproven unproven = Unproven.NOTHING;

  /// What the operator says of the cluster to use, apart from KUBECONFIG.
  ///
  /// @param templates the text of the file of templates ([Templates])
  /// @param install whether to set up namespace and admission policy first, which needs an
  ///   administrator's rights
  public record Settings(
      String namespace,
      String templates,
      InetSocketAddress gateway,
      List<String> admit,
      KubernetesConfig.Reach reach,
      Isolation isolation,
      boolean install) {
    public Settings {
      admit = List.copyOf(admit);
    }
  }

  /// Joins the cluster that kubectl would use here: KUBECONFIG, the user's own configuration, or
  /// the pod's service account.
  ///
  /// @throws IllegalArgumentException when the templates cannot be used
  /// @throws IllegalStateException when the cluster does not answer, or refuses
  public static KubernetesDriver join(
      Settings settings, DeploymentTls tls, Clock clock, RandomGenerator random) {
    Templates templates = Templates.parse(settings.templates());
    KubernetesClient client = Api.client();
    try {
      KubernetesConfig config =
          new KubernetesConfig(
              settings.namespace(),
              templates.byName(),
              templates.agentImage(),
              templates.firewallImage(),
              templates.strong(),
              settings.gateway(),
              settings.admit(),
              settings.reach(),
              settings.isolation(),
              Api.agentDelivery(client));
      if (settings.install()) {
        Guard.install(client, config);
      }
      return new KubernetesDriver(config, client, tls, clock, random);
    } catch (KubernetesClientException e) {
      client.close();
      throw new IllegalStateException(
          "the cluster at " + client.getMasterUrl() + " does not do its part: " + Api.said(e), e);
    }
  }

  /// @param client owned by the driver from here on
  KubernetesDriver(
      KubernetesConfig config,
      KubernetesClient client,
      DeploymentTls tls,
      Clock clock,
      RandomGenerator random) {
    this(config, client, tls, clock, random, SandboxPod.Role.SANDBOX);
  }

  private KubernetesDriver(
      KubernetesConfig config,
      KubernetesClient client,
      DeploymentTls tls,
      Clock clock,
      RandomGenerator random,
      SandboxPod.Role role) {
    this.config = config;
    this.client = client;
    this.tls = tls;
    this.clock = clock;
    this.random = random;
    this.role = role;
    this.door = new AgentDoor(tls);
    this.routes = new Routes(config, client);
    this.pods = new SandboxPod(config, role, SandboxPod.deployment(tls), tls.pin(), clock);
    this.seen = new Pods(client, config.namespace(), pods.selector(), this::changed);
  }

  /// Whoever dials a pod that has ended learns it at once.
  private void changed(Id sandbox) {
    if (look(sandbox).filter(state -> state.status() != Status.EXITED).isEmpty()) {
      door.giveUp(sandbox);
      routes.forget(sandbox);
    }
  }

  @Override
  public String name() {
    return "kubernetes";
  }

  @Override
  public List<String> probe(Duration timeout) {
    Deadline deadline = Deadline.in(timeout);
    try {
      if (config.isolation() == Isolation.NETWORK_POLICY) {
        applyPolicy(deadline);
      }
    } catch (DriverException e) {
      return List.of(e.getMessage());
    }
    proving.lock();
    try {
      unproven = Unproven.EVERYTHING;
      return prove(deadline);
    } catch (DriverException.Full e) {
      LOG.warn(
          "no new sandbox is made until canaries have proven that the cluster holds them in: {}",
          e.getMessage());
      return List.of();
    } finally {
      proving.unlock();
    }
  }

  /// With `proving` held: proves what is unproven.
  ///
  /// @return a sentence for each promise that does not hold; what it concerns stays unproven
  /// @throws DriverException.Full where there is no room for the canaries
  private List<String> prove(Deadline deadline) throws DriverException.Full {
    try (KubernetesDriver canaries =
        new KubernetesDriver(config, client, tls, clock, random, SandboxPod.Role.CANARY)) {
      IsolationProbe probe =
          new IsolationProbe(config, client, canaries, canaries.pods, clock, random);
      if (unproven == Unproven.EVERYTHING) {
        List<String> findings = probe.run(left(deadline));
        if (!findings.isEmpty()) {
          return findings;
        }
        unproven = Unproven.STRONG;
      }
      strongRefusal = String.join(" ", probe.runStrong(left(deadline)));
      unproven = Unproven.NOTHING;
      return List.of();
    }
  }

  /// Nothing is launched that nobody has proven to be held in.
  private void awaitProof(LaunchSpec spec, Deadline deadline) throws DriverException {
    boolean strong = spec.boundary().isolation() == dev.foredeck.policy.Isolation.STRONG;
    if (!unproven.concerns(strong)) {
      return;
    }
    boolean locked = false;
    try {
      locked = proving.tryLock(deadline.remainingNanos(), TimeUnit.NANOSECONDS);
      if (!locked) {
        throw new DriverException.Failed("the cluster's isolation was not proven in time");
      }
      List<String> findings = unproven.concerns(strong) ? prove(deadline) : List.of();
      if (!findings.isEmpty()) {
        throw new DriverException.Refused(
            "this cluster does not hold sandboxes in: " + String.join("; ", findings));
      }
    } catch (DriverException.Full e) {
      throw new DriverException.Full(
          "canaries have to prove first that the cluster holds sandboxes in: " + e.getMessage());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new DriverException.Failed("interrupted while isolation was being proven", e);
    } finally {
      if (locked) {
        proving.unlock();
      }
    }
  }

  private static Duration left(Deadline deadline) {
    return Duration.ofNanos(Math.max(1, deadline.remainingNanos()));
  }

  /// Canaries are how it is found out.
  private void checkIsolation(LaunchSpec spec) throws DriverException.Refused {
    String refusal = strongRefusal;
    if (role == SandboxPod.Role.SANDBOX
        && spec.boundary().isolation() == dev.foredeck.policy.Isolation.STRONG
        && !refusal.isEmpty()) {
      throw new DriverException.Refused(
          "the kubernetes driver cannot give isolation strong (boundary.isolation) on this cluster:"
              + " "
              + refusal);
    }
  }

  private void applyPolicy(Deadline deadline) throws DriverException {
    try {
      var _ =
          Api.within(client, deadline)
              .resource(pods.networkPolicy())
              .fieldManager(FIELD_MANAGER)
              .forceConflicts()
              .serverSideApply();
    } catch (KubernetesClientException e) {
      throw new DriverException.Failed(
          "the cluster does not take a NetworkPolicy: " + Api.said(e), e);
    }
  }

  /// As last seen.
  Pod pod(Id sandbox) throws DriverException.NotThere {
    return seen.get(sandbox)
        .orElseThrow(() -> new DriverException.NotThere("there is no such pod"));
  }

  @Override
  public List<String> templates() {
    return List.copyOf(config.templates().keySet());
  }

  @Override
  public void launch(LaunchSpec spec, Duration timeout) throws DriverException {
    Deadline deadline = Deadline.in(timeout);
    Pod pod = pods.of(spec);
    seen.awaitFirstList(deadline);
    Optional<Pod> before = seen.get(spec.sandbox());
    if (before.isEmpty()) {
      awaitProof(spec, deadline);
      checkIsolation(spec);
      apply(pod, deadline);
    }
    awaitStart(spec.sandbox(), deadline);
  }

  private void apply(Pod pod, Deadline deadline) throws DriverException {
    writes.await(deadline);
    try {
      Pod _ =
          Api.within(client, deadline)
              .resource(pod)
              .fieldManager(FIELD_MANAGER)
              .forceConflicts()
              .serverSideApply();
    } catch (KubernetesClientException e) {
      throw refusal(e);
    }
  }

  /// What the API server's answer to a new pod means.
  private static DriverException refusal(KubernetesClientException e) {
    String said = Api.said(e);
    return switch (e.getCode()) {
      case FORBIDDEN ->
          said.toLowerCase(Locale.ROOT).contains("exceeded quota")
              ? new DriverException.Full("the quota of the namespace is used up: " + said)
              : new DriverException.Refused("the cluster does not admit its pod: " + said);
      case INVALID, BAD_REQUEST ->
          new DriverException.Refused("the cluster does not admit its pod: " + said);
      case NOT_FOUND -> new DriverException.Refused("the cluster has no place for it: " + said);
      default ->
          new DriverException.Failed("the Kubernetes API server did not make it: " + said, e);
    };
  }

  /// What a wait for a pod ended with.
  private sealed interface Start {
    /// @param address of its agent
    record Running(InetSocketAddress address) implements Start {}

    /// @param why it does not run, and will not
    record Not(DriverException why) implements Start {}
  }

  private void awaitStart(Id sandbox, Deadline deadline) throws DriverException {
    Applied applied = new Applied(sandbox);
    Optional<Start> start = seen.await(sandbox, deadline, applied::start);
    if (start.isPresent()) {
      if (start.get() instanceof Start.Not(DriverException why)) {
        throw why;
      }
      return;
    }
    throw seen.get(sandbox)
        .map(pod -> PodView.late(pod, Api.warnings(Api.within(client, Deadline.in(WARNINGS)), pod)))
        .orElseGet(
            () -> new DriverException.Failed("the Kubernetes API server tells nothing of its pod"));
  }

  /// A pod that was applied, while somebody waits for its start.
  private static final class Applied {
    private final Id sandbox;
    private boolean appeared;

    /// Until when room may come; null while there is no lack of it.
    private @Nullable Deadline room;

    Applied(Id sandbox) {
      this.sandbox = sandbox;
    }

    Optional<Start> start(Optional<Pod> pod) {
      appeared |= pod.isPresent();
      // Until the watch has told of it, there is nothing to say.
      return appeared
          ? KubernetesDriver.start(sandbox, pod).or(() -> pod.flatMap(this::noRoom))
          : Optional.empty();
    }

    private Optional<Start> noRoom(Pod pod) {
      Optional<DriverException.Full> full = PodView.noRoom(pod);
      if (full.isEmpty()) {
        room = null;
        return Optional.empty();
      }
      if (room == null) {
        room = Deadline.in(ROOM);
      }
      return room.passed() ? full.map(Start.Not::new) : Optional.empty();
    }
  }

  /// Empty while a pod may yet run.
  private static Optional<Start> start(Id sandbox, Optional<Pod> pod) {
    if (pod.isEmpty()) {
      return Optional.of(new Start.Not(new DriverException.NotThere("there is no such pod")));
    }
    BackendState state = PodView.state(sandbox, pod.get());
    return switch (state.status()) {
      case RUNNING ->
          Optional.ofNullable(pod.get().getStatus().getPodIP())
              .map(ip -> new Start.Running(new InetSocketAddress(ip, KubernetesConfig.AGENT_PORT)));
      case EXITED, REMAINS ->
          Optional.of(new Start.Not(new DriverException.NotThere(state.detail())));
      case STARTING -> PodView.obstacle(pod.get()).map(Start.Not::new);
    };
  }

  @Override
  public void destroy(Id sandbox, Duration timeout) throws DriverException {
    Deadline deadline = Deadline.in(timeout);
    seen.awaitFirstList(deadline);
    writes.await(deadline);
    try {
      // Asked even where none is seen: the watch may be behind what we made.
      var _ =
          Api.within(client, deadline)
              .pods()
              .inNamespace(config.namespace())
              .withName(sandbox.value())
              .withGracePeriod(0)
              .delete();
    } catch (KubernetesClientException e) {
      if (e.getCode() != NOT_FOUND) {
        throw new DriverException.Failed(
            "the Kubernetes API server did not remove its pod: " + Api.said(e), e);
      }
    }
    Optional<Boolean> gone =
        seen.await(sandbox, deadline, pod -> pod.isEmpty() ? Optional.of(true) : Optional.empty());
    if (gone.isEmpty()) {
      throw new DriverException.Failed("its pod is still there: something in the cluster holds it");
    }
    door.giveUp(sandbox);
  }

  @Override
  public Optional<BackendState> inspect(Id sandbox, Duration timeout) throws DriverException {
    seen.awaitFirstList(Deadline.in(timeout));
    return look(sandbox);
  }

  private Optional<BackendState> look(Id sandbox) {
    return seen.get(sandbox).map(pod -> PodView.state(sandbox, pod));
  }

  @Override
  public List<BackendState> list(Duration timeout) throws DriverException {
    seen.awaitFirstList(Deadline.in(timeout));
    return seen.all().stream()
        .filter(pod -> Id.isValid(pod.getMetadata().getName()))
        .map(pod -> PodView.state(new Id(pod.getMetadata().getName()), pod))
        .toList();
  }

  @Override
  public AgentConnection connect(Id sandbox, String token, Duration timeout)
      throws DriverException {
    Deadline deadline = Deadline.in(timeout);
    seen.awaitFirstList(deadline);
    Message.Hello hello = new Message.Hello(token, Optional.of(gateway(sandbox, token)));
    String trouble = "it has not started";
    long pauseMillis = LEAST_PAUSE_MILLIS;
    while (true) {
      Optional<Start> start =
          seen.await(sandbox, deadline, pod -> refusal(pod, token).or(() -> start(sandbox, pod)));
      if (start.isPresent()) {
        switch (start.get()) {
          case Start.Not(DriverException why) -> throw why;
          case Start.Running(InetSocketAddress address) -> {
            try {
              return door.dial(sandbox, routes.to(sandbox, address), hello, deadline);
            } catch (IOException e) {
              trouble = PodView.text(e.toString());
            }
          }
        }
      }
      if (deadline.passed()) {
        throw new DriverException.Failed(
            "its agent did not answer in time: "
                + seen.get(sandbox).flatMap(PodView::lostNode).orElse(trouble));
      }
      deadline.pause("reach the sandbox's agent", pauseMillis);
      pauseMillis = Math.min(MOST_PAUSE_MILLIS, 2 * pauseMillis);
    }
  }

  private static Optional<Start> refusal(Optional<Pod> pod, String token) {
    if (pod.isEmpty()) {
      return Optional.empty();
    }
    byte[] known = ascii(SandboxPod.tokenSha256(pod.get()).orElse(""));
    return MessageDigest.isEqual(known, ascii(Hashes.sha256(token)))
        ? Optional.empty()
        : Optional.of(
            new Start.Not(
                new DriverException.Refused("the sandbox was launched with another token")));
  }

  private static byte[] ascii(String text) {
    return text.getBytes(StandardCharsets.US_ASCII);
  }

  private Message.Gateway gateway(Id sandbox, String token) {
    return new Message.Gateway(
        sandbox.value(),
        config.gateway().getAddress().getHostAddress(),
        config.gateway().getPort(),
        credential(token));
  }

  /// What the sandbox's bridge presents to the gateway: follows from the token, and tells nothing
  /// of it.
  private static String credential(String token) {
    return Hashes.hmacSha256(token.getBytes(StandardCharsets.UTF_8), "egress");
  }

  @Override
  public Optional<EgressPath> egressPath(Id sandbox, String token) {
    return Optional.of(new EgressPath.Credential(Hashes.sha256(credential(token))));
  }

  @Override
  public void close() {
    seen.close();
    door.giveUpAll();
    routes.close();
    switch (role) {
      case SANDBOX -> client.close();
      // Lent by the driver whose probe this is.
      case CANARY -> {}
    }
  }
}
