package dev.foredeck.app;

import dev.foredeck.app.Configuration.ConfigurationException;
import dev.foredeck.core.ApiKeys;
import dev.foredeck.core.DeploymentTls;
import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Patience;
import dev.foredeck.core.Policies;
import dev.foredeck.core.Role;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.egress.EgressGateway;
import dev.foredeck.core.feed.LogFeeds;
import dev.foredeck.core.gate.Agents;
import dev.foredeck.core.gate.Gate;
import dev.foredeck.core.gate.Recorder;
import dev.foredeck.core.pool.PoolPace;
import dev.foredeck.core.pool.WarmPools;
import dev.foredeck.core.sandbox.Launcher;
import dev.foredeck.core.sandbox.Provisioning;
import dev.foredeck.core.sandbox.Reaper;
import dev.foredeck.core.store.Store;
import dev.foredeck.core.store.Store.StoreUnavailableException;
import dev.foredeck.driver.docker.DockerConfig;
import dev.foredeck.driver.docker.DockerDriver;
import dev.foredeck.driver.host.HostPlaces;
import dev.foredeck.driver.kubernetes.Installation;
import dev.foredeck.driver.kubernetes.KubernetesDriver;
import dev.foredeck.driver.local.LocalConfig;
import dev.foredeck.driver.local.LocalDriver;
import dev.foredeck.driver.simulated.Pace;
import dev.foredeck.driver.simulated.SimulatedBackend;
import dev.foredeck.driver.simulated.SimulatedDriver;
import dev.foredeck.egress.Dialer;
import dev.foredeck.egress.EgressLimits;
import dev.foredeck.egress.HttpEgressGateway;
import dev.foredeck.egress.LinkKey;
import dev.foredeck.egress.LinkLimits;
import dev.foredeck.egress.LocalAddresses;
import dev.foredeck.egress.Pins;
import dev.foredeck.egress.RemoteEgressGateway;
import dev.foredeck.egress.Resolver;
import dev.foredeck.protocol.CertificatePin;
import dev.foredeck.server.ForedeckServer;
import dev.foredeck.server.Listen;
import dev.foredeck.store.DatabaseUrl;
import dev.foredeck.store.PostgresStore;
import dev.foredeck.store.embedded.EmbeddedPostgres;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Clock;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// A running control plane: makes every part by hand, in order, and ends them in the reverse order.
final class ControlPlane implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(ControlPlane.class);
  private static final Duration DATABASE = Duration.ofSeconds(60);
  private static final Duration PROBE = Duration.ofSeconds(60);
  private static final Duration DRAIN = Duration.ofSeconds(10);
  private static final Duration SWEEP = Duration.ofSeconds(30);
  private static final String TENANT = "default";
  private static final String ADMIN_KEY = "admin.key";
  private static final String GATEWAY_KEY = "gateway.key";

  /// How long a start that is told to stop may go on with the step that it is at.
  private static final Duration UNWIND = DATABASE.plus(Duration.ofSeconds(10));

  private final Configuration configuration;
  private final Deque<AutoCloseable> parts = new ArrayDeque<>();
  private final CountDownLatch built = new CountDownLatch(1);
  private final Object ending = new Object();
  private boolean closed;
  private volatile boolean leftSomething;

  /// Told to stop while it started.
  static final class StoppedException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    StoppedException() {
      super("the control plane was told to stop while it started");
    }
  }

  ControlPlane(Configuration configuration) {
    this.configuration = configuration;
  }

  /// Returns the URL when the server serves. Once.
  ///
  /// @throws ConfigurationException when configuration or host cannot be used
  /// @throws StoppedException when [#close] was called meanwhile
  String start() {
    try {
      return build(configuration);
    } catch (RuntimeException e) {
      built.countDown();
      close();
      throw e;
    } finally {
      built.countDown();
    }
  }

  private String build(Configuration configuration) {
    Clock clock = Clock.systemUTC();
    SecureRandom random = new SecureRandom();
    Ids ids = new Ids(clock, random);
    Limits limits =
        Limits.DEFAULT.withSandboxes(configuration.sandboxesPerTenant(), configuration.sandboxes());
    DataDirectory data = keep(DataDirectory.open(configuration.dataDir()));

    // The probe and the database take most of the start: at the same time.
    byte[] deploymentKey = data.deploymentKey(random);
    Optional<Installation> installation =
        installation(configuration, data, LinkKey.of(deploymentKey), random);
    Driver driver =
        keep(driver(configuration, data, installation.map(Installation::bridges), clock, random));
    FutureTask<List<String>> probe = new FutureTask<>(() -> driver.probe(PROBE));
    Thread.ofVirtual().name("probe").start(probe);
    Store store = store(configuration, random, clock);
    List<String> findings = await(probe);
    if (!findings.isEmpty()) {
      throw new ConfigurationException(
          "this host does not enforce what the "
              + driver.name()
              + " driver promises, so no sandbox is made on it:\n  - "
              + String.join("\n  - ", findings));
    }

    Policies policies = new Policies(PolicySources.read(data.resolve("policies")), store);
    ApiKeys keys = new ApiKeys(store, clock, ids, random);
    adminKey(data, store, keys, ids);

    ScheduledThreadPoolExecutor timer =
        new ScheduledThreadPoolExecutor(
            1, Thread.ofPlatform().daemon().name("agent-deadlines").factory());
    timer.setRemoveOnCancelPolicy(true);
    keep(timer::shutdownNow);
    String owner = data.replica(ids);
    Agents agents = new Agents(driver, deploymentKey, timer);
    EgressGateway egress =
        keep(
            egress(
                configuration,
                gateways(configuration, installation),
                data,
                LinkKey.of(deploymentKey),
                owner,
                random));
    WarmPools pools =
        keep(pools(configuration, store, driver, agents, policies, owner, clock, ids, limits));
    Launcher launcher =
        keep(new Launcher(store, driver, egress, agents, policies, pools, owner, clock, limits));
    Recorder recorder = new Recorder(clock, ids, limits);
    Gate gate = new Gate(store, agents, policies, recorder, launcher, clock, limits);
    Provisioning sandboxes =
        new Provisioning(
            store,
            policies,
            recorder,
            launcher,
            pools,
            driver.templates(),
            owner,
            clock,
            ids,
            limits);
    Reaper reaper = keep(new Reaper(store, driver, launcher, SWEEP));
    LOG.info("{} sandboxes taken up from before", launcher.adopt());
    reaper.start();
    pools.start();
    keep(new Retention(store, clock, configuration.keepOutput(), configuration.keepEvents()))
        .start();
    Metrics metrics = keep(new Metrics());
    metrics.pools(pools::states);
    ForedeckServer server =
        new ForedeckServer(
            sandboxes,
            gate,
            new LogFeeds(store, limits),
            keys,
            pools,
            limits,
            Listen.at(configuration.listenHost(), configuration.listenPort()),
            () ->
                store.healthy()
                    ? Optional.empty()
                    : Optional.of("the database does not answer, or takes no writes"),
            metrics,
            random);
    metrics.requests(server::working);
    int port = listen(server);
    // Nobody has a warm sandbox: who stops Foredeck leaves none behind.
    keep(() -> drain(pools));
    keep(() -> server.stop(DRAIN));
    String host = configuration.listenHost();
    return "http://" + (host.contains(":") ? "[" + host + "]" : host) + ":" + port;
  }

  private static WarmPools pools(
      Configuration configuration,
      Store store,
      Driver driver,
      Agents agents,
      Policies policies,
      String owner,
      Clock clock,
      Ids ids,
      Limits limits) {
    try {
      return new WarmPools(
          store,
          driver,
          agents,
          policies,
          configuration.pools(),
          owner,
          clock,
          ids,
          limits,
          Patience.DEFAULT,
          PoolPace.DEFAULT);
    } catch (IllegalArgumentException e) {
      throw new ConfigurationException(PoolSettings.KEY + ": " + e.getMessage());
    }
  }

  private static void drain(WarmPools pools) {
    if (!pools.drain(DRAIN)) {
      LOG.warn("not every warm sandbox is destroyed: the next start goes on with it");
    }
  }

  /// An address that is taken is the operator's to change, like a wrong key.
  private static int listen(ForedeckServer server) {
    try {
      return server.start();
    } catch (IllegalStateException e) {
      throw new ConfigurationException(String.valueOf(e.getMessage()));
    }
  }

  private static Driver driver(
      Configuration configuration,
      DataDirectory data,
      Optional<InetSocketAddress> installedGateway,
      Clock clock,
      SecureRandom random) {
    return switch (configuration.driver()) {
      case LOCAL ->
          new LocalDriver(
              LocalConfig.of(
                  HostPlaces.of(configuration.dataDir(), bundle(configuration)),
                  configuration.runtime(),
                  configuration.strongRuntime()),
              random);
      case DOCKER -> {
        try {
          yield new DockerDriver(
              new DockerConfig(
                  HostPlaces.of(configuration.dataDir(), bundle(configuration)),
                  configuration.dockerHost().orElse(DockerConfig.DEFAULT_DAEMON),
                  configuration.dockerTemplates(),
                  configuration.dockerRuntime()),
              random,
              Clock.systemUTC());
        } catch (IllegalArgumentException e) {
          throw new ConfigurationException(String.valueOf(e.getMessage()));
        }
      }
      case KUBERNETES ->
          kubernetes(
              configuration.kubernetes().orElseThrow(),
              installedGateway,
              data.deploymentTls(random),
              clock,
              random);
      case SIMULATED ->
          new SimulatedDriver(
              new SimulatedBackend(Pace.real(), random.nextLong(), configuration.sandboxes()));
    };
  }

  private static EgressGateway egress(
      Configuration configuration,
      Map<String, Dialer> gateways,
      DataDirectory data,
      LinkKey key,
      String owner,
      SecureRandom random) {
    if (gateways.isEmpty()) {
      return new HttpEgressGateway(
          EgressLimits.DEFAULT,
          new Pins(configuration.egressPins()),
          Resolver.system(),
          new LocalAddresses(System::nanoTime),
          System::nanoTime);
    }
    return new RemoteEgressGateway(
        gateways,
        CertificatePin.of(data.deploymentTls(random).pin()),
        key,
        owner,
        LinkLimits.DEFAULT,
        System::nanoTime,
        random);
  }

  /// The ways to the control ports of gateways of their own process; empty: this process is it.
  private static Map<String, Dialer> gateways(
      Configuration configuration, Optional<Installation> installation) {
    Map<String, Dialer> gateways = new LinkedHashMap<>();
    for (Configuration.HostAndPort gateway : configuration.gateways()) {
      gateways.put(gateway.toString(), Dialer.to(gateway.host(), gateway.port()));
    }
    installation.ifPresent(installed -> gateways.put("in-cluster", Dialer.to(installed::control)));
    return gateways;
  }

  private static Path bundle(Configuration configuration) {
    return configuration
        .agentBundle()
        .orElseThrow(() ->
            new ConfigurationException(
                "FOREDECK_AGENT_BUNDLE is not set: start with ./foredeck up, or name the folder"
                    + " that sandbox-agent/agent/bundle.sh made"));
  }

  /// The gateway that is set up in the cluster where none is named; it goes after all that uses it.
  private Optional<Installation> installation(
      Configuration configuration, DataDirectory data, LinkKey key, SecureRandom random) {
    if (!configuration.gateways().isEmpty()) {
      try {
        // What the operator gives the gateways, beside the certificate: before anything waits for
        // one of them.
        data.writeSecret(GATEWAY_KEY, key.text());
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
    Optional<Configuration.Kubernetes> cluster =
        configuration.kubernetes().filter(kubernetes -> kubernetes.gateway().isEmpty());
    if (cluster.isEmpty()) {
      return Optional.empty();
    }
    Configuration.Kubernetes kubernetes = cluster.get();
    Installation installation =
        inCluster(
            kubernetes,
            templates ->
                Installation.of(
                    new Installation.Spec(
                        kubernetes.namespace(),
                        kubernetes.gatewayNamespace(),
                        templates,
                        data.deploymentTls(random),
                        key.text(),
                        configuration.egressPins(),
                        kubernetes.reach(),
                        kubernetes.install() == Configuration.Install.TEMPORARY)));
    keep(() -> leftSomething |= !installation.remove());
    return Optional.of(installation);
  }

  private static Driver kubernetes(
      Configuration.Kubernetes kubernetes,
      Optional<InetSocketAddress> installedGateway,
      DeploymentTls tls,
      Clock clock,
      SecureRandom random) {
    return inCluster(
        kubernetes,
        templates ->
            KubernetesDriver.join(
                new KubernetesDriver.Settings(
                    kubernetes.namespace(),
                    templates,
                    kubernetes.gateway().or(() -> installedGateway).orElseThrow(),
                    kubernetes.admit(),
                    kubernetes.reach(),
                    kubernetes.isolation(),
                    kubernetes.install() != Configuration.Install.NOTHING),
                tls,
                clock,
                random));
  }

  /// @param with is given the text of the file of templates
  private static <T> T inCluster(Configuration.Kubernetes kubernetes, Function<String, T> with) {
    try {
      return with.apply(Files.readString(kubernetes.templates()));
    } catch (IOException e) {
      throw new ConfigurationException(
          "FOREDECK_KUBERNETES_TEMPLATES: " + kubernetes.templates() + " cannot be read: " + e);
    } catch (IllegalArgumentException e) {
      throw new ConfigurationException(
          "FOREDECK_KUBERNETES_TEMPLATES: " + kubernetes.templates() + ": " + e.getMessage());
    } catch (IllegalStateException e) {
      throw new ConfigurationException(String.valueOf(e.getMessage()));
    }
  }

  private Store store(Configuration configuration, SecureRandom random, Clock clock) {
    try {
      DatabaseUrl url;
      if (configuration.databaseUrl().isPresent()) {
        url = DatabaseUrl.parse(configuration.databaseUrl().get());
      } else if (ControlPlane.class.getResource(
              "/dev/foredeck/store/embedded/EmbeddedPostgres.class")
          == null) {
        throw new ConfigurationException(
            "this build is without the embedded database: set FOREDECK_DATABASE_URL to a PostgreSQL"
                + " 15 or newer");
      } else {
        EmbeddedPostgres postgres =
            keep(
                EmbeddedPostgres.start(
                    configuration.dataDir().resolve("postgres"), random, DATABASE));
        url = new DatabaseUrl(postgres.jdbcUrl(), EmbeddedPostgres.USER, postgres.password());
      }
      return keep(opened(url, random, clock));
    } catch (IOException e) {
      throw new ConfigurationException("the database cannot be used: " + e.getMessage());
    } catch (StoreUnavailableException | IllegalArgumentException e) {
      throw new ConfigurationException("the database cannot be used: " + e.getMessage());
    }
  }

  /// A server that is too old, or set up to lose what it acknowledges, is the operator's to change.
  private static Store opened(DatabaseUrl url, SecureRandom random, Clock clock) {
    try {
      return PostgresStore.open(url, random, clock);
    } catch (IllegalStateException e) {
      if (e.getCause() != null) {
        LOG.error("the database cannot be used", e);
      }
      throw new ConfigurationException("the database cannot be used: " + e.getMessage());
    }
  }

  /// The first start makes the tenant and the operator's key. A key file without its row (another
  /// database) is replaced.
  private static void adminKey(DataDirectory data, Store store, ApiKeys keys, Ids ids) {
    Id tenant =
        store
            .tenantNamed(TENANT)
            .orElseGet(() -> {
              Id id = ids.tenant();
              store.ensureTenant(id, TENANT);
              return store.tenantNamed(TENANT).orElse(id);
            });
    Path file = data.resolve(ADMIN_KEY);
    try {
      if (Files.exists(file)
          && store
              .keyByHash(dev.foredeck.core.Hashes.sha256(Files.readString(file).strip()))
              .isPresent()) {
        return;
      }
      data.writeSecret(ADMIN_KEY, keys.create(tenant, "admin", Role.OPERATOR).secret());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static List<String> await(FutureTask<List<String>> probe) {
    try {
      return probe.get();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new ConfigurationException("interrupted while the host was being probed");
    } catch (ExecutionException e) {
      throw new IllegalStateException("the host could not be probed", e.getCause());
    }
  }

  /// What is made after we were told to stop ends at once.
  private <T extends AutoCloseable> T keep(T part) {
    synchronized (parts) {
      if (!closed) {
        parts.push(part);
        return part;
      }
    }
    end(part);
    throw new StoppedException();
  }

  private static void end(AutoCloseable part) {
    try {
      part.close();
    } catch (Exception e) {
      LOG.warn("{} could not be closed", part.getClass().getSimpleName(), e);
    }
  }

  /// After [#close]: whether something is still there that should have been removed.
  boolean leftSomething() {
    return leftSomething;
  }

  /// Drains and lets go; sandboxes stay as they are. While it starts, at the next step of that. By
  /// any thread, and again: returns when nothing of ours runs any more.
  @Override
  public void close() {
    synchronized (parts) {
      closed = true;
    }
    try {
      if (!built.await(UNWIND.toMillis(), TimeUnit.MILLISECONDS)) {
        LOG.warn("the start goes on after {}; what it makes may be left behind", UNWIND);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    synchronized (ending) {
      while (!parts.isEmpty()) {
        end(parts.pop());
      }
    }
  }
}
