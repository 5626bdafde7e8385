package dev.foredeck.app;

import dev.foredeck.app.Configuration.ConfigurationException;
import dev.foredeck.core.ApiKeys;
import dev.foredeck.core.DeploymentTls;
import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Policies;
import dev.foredeck.core.Role;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.feed.LogFeeds;
import dev.foredeck.core.gate.Agents;
import dev.foredeck.core.gate.Gate;
import dev.foredeck.core.gate.Recorder;
import dev.foredeck.core.sandbox.Launcher;
import dev.foredeck.core.sandbox.Provisioning;
import dev.foredeck.core.sandbox.Reaper;
import dev.foredeck.core.store.Store;
import dev.foredeck.core.store.Store.StoreUnavailableException;
import dev.foredeck.driver.kubernetes.KubernetesDriver;
import dev.foredeck.driver.local.LocalConfig;
import dev.foredeck.driver.local.LocalDriver;
import dev.foredeck.driver.simulated.Pace;
import dev.foredeck.driver.simulated.SimulatedBackend;
import dev.foredeck.driver.simulated.SimulatedDriver;
import dev.foredeck.egress.EgressLimits;
import dev.foredeck.egress.HttpEgressGateway;
import dev.foredeck.egress.LocalAddresses;
import dev.foredeck.egress.Pins;
import dev.foredeck.egress.Resolver;
import dev.foredeck.server.ForedeckServer;
import dev.foredeck.server.Listen;
import dev.foredeck.store.DatabaseUrl;
import dev.foredeck.store.PostgresStore;
import dev.foredeck.store.embedded.EmbeddedPostgres;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Clock;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.ScheduledThreadPoolExecutor;
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

  private final Deque<AutoCloseable> parts = new ArrayDeque<>();
  private final String url;

  private ControlPlane(Configuration configuration) {
    try {
      this.url = build(configuration);
    } catch (RuntimeException e) {
      close();
      throw e;
    }
  }

  /// Returns when the server serves.
  ///
  /// @throws ConfigurationException when configuration or host cannot be used
  static ControlPlane start(Configuration configuration) {
    return new ControlPlane(configuration);
  }

  String url() {
    return url;
  }

  private String build(Configuration configuration) {
    Clock clock = Clock.systemUTC();
    SecureRandom random = new SecureRandom();
    Ids ids = new Ids(clock, random);
    Limits limits = Limits.DEFAULT;
    DataDirectory data = keep(DataDirectory.open(configuration.dataDir()));

    // The probe and the database take most of the start: at the same time.
    Driver driver = keep(driver(configuration, data, clock, random));
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
    HttpEgressGateway egress =
        keep(
            new HttpEgressGateway(
                EgressLimits.DEFAULT,
                new Pins(configuration.egressPins()),
                Resolver.system(),
                new LocalAddresses(System::nanoTime),
                System::nanoTime));
    String owner = data.replica(ids);
    Agents agents = new Agents(driver, data.deploymentKey(random), timer);
    Launcher launcher =
        keep(new Launcher(store, driver, egress, agents, policies, owner, clock, limits));
    Recorder recorder = new Recorder(clock, ids, limits);
    Gate gate = new Gate(store, agents, policies, recorder, launcher, clock, limits);
    Provisioning sandboxes =
        new Provisioning(
            store, policies, recorder, launcher, driver.templates(), owner, clock, ids, limits);
    Reaper reaper = keep(new Reaper(store, driver, launcher, SWEEP));
    LOG.info("{} sandboxes taken up from before", launcher.adopt());
    reaper.start();
    keep(new Retention(store, clock, configuration.keepOutput(), configuration.keepEvents()))
        .start();
    ForedeckServer server =
        new ForedeckServer(
            sandboxes,
            gate,
            new LogFeeds(store, limits),
            keys,
            limits,
            Listen.at(configuration.listenHost(), configuration.listenPort()),
            () -> store.healthy() ? Optional.empty() : Optional.of("the database does not answer"),
            random);
    int port = listen(server);
    keep(() -> server.stop(DRAIN));
    String host = configuration.listenHost();
    return "http://" + (host.contains(":") ? "[" + host + "]" : host) + ":" + port;
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
      Configuration configuration, DataDirectory data, Clock clock, SecureRandom random) {
    return switch (configuration.driver()) {
      case LOCAL -> {
        Path bundle =
            configuration
                .agentBundle()
                .orElseThrow(() ->
                    new ConfigurationException(
                        "FOREDECK_AGENT_BUNDLE is not set: start with ./foredeck up, or name the"
                            + " folder that sandbox-agent/agent/bundle.sh made"));
        yield new LocalDriver(LocalConfig.of(configuration.dataDir(), bundle), random);
      }
      case KUBERNETES ->
          kubernetes(
              configuration.kubernetes().orElseThrow(), data.deploymentTls(random), clock, random);
      case SIMULATED ->
          new SimulatedDriver(
              new SimulatedBackend(
                  Pace.real(), random.nextLong(), Limits.DEFAULT.sandboxesPerOwner()));
    };
  }

  private static Driver kubernetes(
      Configuration.Kubernetes kubernetes, DeploymentTls tls, Clock clock, SecureRandom random) {
    try {
      return KubernetesDriver.join(
          new KubernetesDriver.Settings(
              kubernetes.namespace(),
              Files.readString(kubernetes.templates()),
              kubernetes.gateway(),
              kubernetes.admit(),
              kubernetes.reach(),
              kubernetes.isolation(),
              kubernetes.install()),
          tls,
          clock,
          random);
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

  private <T extends AutoCloseable> T keep(T part) {
    parts.push(part);
    return part;
  }

  /// Drains and lets go; sandboxes stay as they are.
  @Override
  public void close() {
    while (!parts.isEmpty()) {
      AutoCloseable part = parts.pop();
      try {
        part.close();
      } catch (Exception e) {
        LOG.warn("{} could not be closed", part.getClass().getSimpleName(), e);
      }
    }
  }
}
