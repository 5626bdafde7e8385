package dev.foredeck.app;

import dev.foredeck.core.Limits;
import dev.foredeck.core.pool.PoolSetting;
import dev.foredeck.driver.kubernetes.KubernetesConfig.Isolation;
import dev.foredeck.driver.kubernetes.KubernetesConfig.Reach;
import dev.foredeck.driver.local.OciRuntime;
import dev.foredeck.egress.RemoteEgressGateway;
import java.net.Inet4Address;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;

/// What the operator configured: options, then the environment, then defaults. An unknown key
/// refuses start-up: a misspelt one would otherwise be a silent default.
///
/// @param listenHost address to bind
/// @param listenPort 0 for any free one
/// @param dataDir everything that Foredeck keeps on this host
/// @param databaseUrl an outside PostgreSQL; empty: the embedded one
/// @param egressPins host or host:port to address and port, the only way to a private address
/// @param agentBundle the agent's runtime, for drivers that run real sandboxes
/// @param runtime the local driver's: `runc`, `runsc`, or an absolute path to one of them
/// @param strongRuntime gVisor's, for sandboxes whose policy demands isolation `strong` where
///   `runtime` is not gVisor's
/// @param dockerHost the Docker daemon's socket on this host
/// @param dockerTemplates names of templates and their images, the default first; only the Docker
///   driver has them
/// @param dockerRuntime the Docker daemon's runtime for every sandbox; empty: its default
/// @param kubernetes present with the driver `kubernetes`
/// @param keepOutput how long output and copied-out files are kept
/// @param keepEvents how long events and calls are kept: decisions outlive output
/// @param sandboxes live ones that this control plane has at most, those of its pools among them
/// @param sandboxesPerTenant live ones of a tenant at most
/// @param pools of warm sandboxes
/// @param gateways control ports of egress gateways of their own process; none: this process is it,
///   or one is set up in the cluster
record Configuration(
    String listenHost,
    int listenPort,
    Path dataDir,
    DriverKind driver,
    Optional<String> databaseUrl,
    Map<String, InetSocketAddress> egressPins,
    Optional<Path> agentBundle,
    OciRuntime runtime,
    OciRuntime strongRuntime,
    Optional<URI> dockerHost,
    Map<String, String> dockerTemplates,
    Optional<String> dockerRuntime,
    Optional<Kubernetes> kubernetes,
    Duration keepOutput,
    Duration keepEvents,
    int sandboxes,
    int sandboxesPerTenant,
    List<PoolSetting> pools,
    List<HostAndPort> gateways) {

  /// What the driver `kubernetes` needs, beside the KUBECONFIG that kubectl uses too.
  ///
  /// @param namespace where the sandboxes' pods are
  /// @param templates the operator's file of templates
  /// @param gateway the egress gateway, as pods reach it; empty: one is set up in the cluster
  /// @param gatewayNamespace where that one is set up
  /// @param admit IPv4 addresses or networks that control planes dial pods from
  record Kubernetes(
      String namespace,
      Path templates,
      Optional<InetSocketAddress> gateway,
      String gatewayNamespace,
      List<String> admit,
      Reach reach,
      Isolation isolation,
      Install install) {}

  /// What is set up in the cluster, beside the sandboxes' pods.
  enum Install {
    /// Nothing: an administrator has done it.
    NOTHING,
    /// Namespace, admission policy, and a gateway where none is named.
    KEPT,
    /// The same, removed when the control plane stops, with every sandbox.
    TEMPORARY
  }

  enum DriverKind {
    LOCAL,
    DOCKER,
    KUBERNETES,
    SIMULATED
  }

  /// A configuration that cannot be used; the message says which key and what would be right.
  static final class ConfigurationException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    ConfigurationException(String message) {
      super(message);
    }
  }

  private static final String PREFIX = "FOREDECK_";

  /// What an Idempotency-Key stands for, and what a live sandbox has, is younger.
  private static final int LEAST_DAYS = 2;

  private static final int MOST_DAYS = 36_500;

  private static final int MOST_SANDBOXES = 10_000;

  /// Read by the launcher script, the CLI, the logging configuration or the test cluster.
  private static final Set<String> ELSEWHERE =
      Set.of(
          "FOREDECK_LOG",
          "FOREDECK_UP_COMMAND",
          "FOREDECK_URL",
          "FOREDECK_KEY",
          "FOREDECK_CLUSTER_DIR",
          "FOREDECK_CLUSTER_ADDRESS",
          "FOREDECK_CLUSTER_LOOPBACK",
          "FOREDECK_CLUSTER_PODS",
          "FOREDECK_CLUSTER_SERVICES",
          "FOREDECK_DOCKER_DIR");

  private enum Key {
    LISTEN,
    DATA,
    DRIVER,
    DATABASE_URL,
    EGRESS_PINS,
    AGENT_BUNDLE,
    RUNTIME,
    RUNSC,
    DOCKER_HOST,
    DOCKER_RUNTIME,
    DOCKER_TEMPLATES,
    KEEP_OUTPUT_DAYS,
    KEEP_EVENTS_DAYS,
    SANDBOXES,
    SANDBOXES_PER_TENANT,
    POOLS,
    GATEWAY,
    KUBERNETES_NAMESPACE,
    KUBERNETES_TEMPLATES,
    KUBERNETES_GATEWAY,
    KUBERNETES_GATEWAY_NAMESPACE,
    KUBERNETES_ADMIT,
    KUBERNETES_REACH,
    KUBERNETES_ISOLATION,
    KUBERNETES_INSTALL;

    String variable() {
      return PREFIX + name();
    }
  }

  /// @param options by key name in lower case (`listen`, `data`, `driver`), which win over the
  ///   environment
  static Configuration of(Map<String, String> options, Map<String, String> environment) {
    Set<String> known =
        Arrays.stream(Key.values())
            .map(Key::variable)
            .collect(Collectors.toCollection(TreeSet::new));
    refuseUnknown(known, environment);
    Reader reader = new Reader(options, environment);
    HostAndPort listen =
        HostAndPort.parse("FOREDECK_LISTEN", reader.get(Key.LISTEN).orElse("127.0.0.1:7070"), 0);
    DriverKind driver = driver(reader.get(Key.DRIVER).orElse("local"));
    Map<String, String> templates = templates(reader.get(Key.DOCKER_TEMPLATES).orElse(""));
    if (driver == DriverKind.DOCKER && templates.isEmpty()) {
      throw new ConfigurationException(
          "FOREDECK_DOCKER_TEMPLATES is not set: the docker driver makes sandboxes from the images"
              + " that it names and from no others, as"
              + " base=foredeck-base:1,python=registry/python:3");
    }
    List<HostAndPort> gateways = gateways(reader.get(Key.GATEWAY).orElse(""));
    String pins = reader.get(Key.EGRESS_PINS).orElse("");
    Optional<Kubernetes> kubernetes =
        driver == DriverKind.KUBERNETES ? Optional.of(kubernetes(reader)) : Optional.empty();
    if (gateways.isEmpty() && kubernetes.flatMap(Kubernetes::gateway).isPresent()) {
      throw new ConfigurationException(
          "FOREDECK_GATEWAY is not set: beside FOREDECK_KUBERNETES_GATEWAY, which pods reach, it"
              + " names the same gateway's control port, as HOST:PORT");
    }
    if (!gateways.isEmpty() && kubernetes.isPresent() && kubernetes.get().gateway().isEmpty()) {
      throw new ConfigurationException(
          "FOREDECK_KUBERNETES_GATEWAY is not set: beside FOREDECK_GATEWAY, it names the same"
              + " gateway as pods reach it, as ADDRESS:PORT");
    }
    if (!gateways.isEmpty() && (driver == DriverKind.LOCAL || driver == DriverKind.DOCKER)) {
      throw new ConfigurationException(
          "FOREDECK_GATEWAY is set: sandboxes of this host reach the gateway of this process"
              + " alone, so leave it out");
    }
    if (!gateways.isEmpty() && !pins.isEmpty()) {
      throw new ConfigurationException(
          "FOREDECK_EGRESS_PINS is set beside FOREDECK_GATEWAY: pins are the gateway's, set them"
              + " there");
    }
    return new Configuration(
        listen.host(),
        listen.port(),
        Path.of(reader.get(Key.DATA).orElse("/var/lib/foredeck")).toAbsolutePath().normalize(),
        driver,
        reader.get(Key.DATABASE_URL),
        pins(pins),
        reader.get(Key.AGENT_BUNDLE).map(path -> Path.of(path).toAbsolutePath().normalize()),
        runtime(reader),
        strongRuntime(reader),
        dockerHost(reader, environment),
        templates,
        reader.get(Key.DOCKER_RUNTIME),
        kubernetes,
        Duration.ofDays(reader.number(Key.KEEP_OUTPUT_DAYS, "days", LEAST_DAYS, MOST_DAYS, 30)),
        Duration.ofDays(reader.number(Key.KEEP_EVENTS_DAYS, "days", LEAST_DAYS, MOST_DAYS, 365)),
        reader.number(
            Key.SANDBOXES, "sandboxes", 1, MOST_SANDBOXES, Limits.DEFAULT.sandboxesPerOwner()),
        reader.number(
            Key.SANDBOXES_PER_TENANT,
            "sandboxes",
            1,
            MOST_SANDBOXES,
            Limits.DEFAULT.sandboxesPerTenant()),
        PoolSettings.parse(reader.get(Key.POOLS).orElse(PoolSettings.DEFAULT)),
        gateways);
  }

  /// A misspelt key would otherwise be a silent default.
  static void refuseUnknown(Set<String> known, Map<String, String> environment) {
    for (String variable : new TreeSet<>(environment.keySet())) {
      if (variable.startsWith(PREFIX)
          && !known.contains(variable)
          && !ELSEWHERE.contains(variable)) {
        throw new ConfigurationException(
            variable
                + " is not a key of Foredeck; the keys are "
                + String.join(", ", new TreeSet<>(known)));
      }
    }
  }

  /// @param host without the brackets of an IPv6 address
  record HostAndPort(String host, int port) {
    /// @param least 0 where any free port will do
    static HostAndPort parse(String key, String text, int least) {
      int colon = text.lastIndexOf(':');
      if (colon < 1) {
        throw new ConfigurationException(
            key + " is '" + text + "': it must be HOST:PORT, as 127.0.0.1:7070");
      }
      String host = text.substring(0, colon);
      if (host.startsWith("[") && host.endsWith("]")) {
        host = host.substring(1, host.length() - 1);
      }
      return new HostAndPort(host, Configuration.port(key, text.substring(colon + 1), least));
    }

    @Override
    public String toString() {
      return (host.contains(":") ? "[" + host + "]" : host) + ":" + port;
    }
  }

  private static List<HostAndPort> gateways(String text) {
    List<HostAndPort> gateways = new ArrayList<>();
    for (String gateway : text.split(",", -1)) {
      if (!gateway.isBlank()) {
        gateways.add(HostAndPort.parse("FOREDECK_GATEWAY", gateway.strip(), 1));
      }
    }
    int most = RemoteEgressGateway.MOST_GATEWAYS;
    if (gateways.size() > most || Set.copyOf(gateways).size() < gateways.size()) {
      throw new ConfigurationException(
          "FOREDECK_GATEWAY is '"
              + text
              + "': it must name at most "
              + most
              + " different gateways, as HOST:PORT,HOST:PORT");
    }
    return List.copyOf(gateways);
  }

  private static OciRuntime runtime(Reader reader, Key key, OciRuntime absent) {
    try {
      return reader.get(key).map(OciRuntime::new).orElse(absent);
    } catch (IllegalArgumentException e) {
      throw new ConfigurationException(key.variable() + ": " + e.getMessage());
    }
  }

  /// Which program `runsc` is, `FOREDECK_RUNSC` says for every sandbox.
  private static OciRuntime runtime(Reader reader) {
    OciRuntime runtime = runtime(reader, Key.RUNTIME, OciRuntime.RUNC);
    return runtime.equals(OciRuntime.RUNSC) ? strongRuntime(reader) : runtime;
  }

  private static OciRuntime strongRuntime(Reader reader) {
    OciRuntime strong = runtime(reader, Key.RUNSC, OciRuntime.RUNSC);
    if (!strong.hasItsOwnKernel()) {
      throw new ConfigurationException(
          Key.RUNSC.variable() + " must name gVisor's runsc, not " + strong.program());
    }
    return strong;
  }

  private record Reader(Map<String, String> options, Map<String, String> environment) {
    Optional<String> get(Key key) {
      String option = options.get(key.name().toLowerCase(java.util.Locale.ROOT));
      String value = option != null ? option : environment.get(key.variable());
      return Optional.ofNullable(value).filter(v -> !v.isBlank());
    }

    String required(Key key, String what) {
      return get(key)
          .orElseThrow(() ->
              new ConfigurationException(
                  key.variable() + " is not set: the driver kubernetes needs " + what));
    }

    <T> T choice(Key key, Map<String, T> choices, String otherwise) {
      String text = get(key).orElse(otherwise);
      T chosen = choices.get(text);
      if (chosen == null) {
        throw new ConfigurationException(
            key.variable()
                + " is '"
                + text
                + "': it must be one of "
                + String.join(", ", new TreeSet<>(choices.keySet())));
      }
      return chosen;
    }

    /// @param unit in the plural, for the refusal
    int number(Key key, String unit, int least, int most, int otherwise) {
      String text = get(key).map(String::strip).orElse(Integer.toString(otherwise));
      if (text.matches("[0-9]{1,5}")) {
        int number = Integer.parseInt(text);
        if (number >= least && number <= most) {
          return number;
        }
      }
      throw new ConfigurationException(
          key.variable()
              + " is '"
              + text
              + "': it must be a number of "
              + unit
              + " from "
              + least
              + " to "
              + most);
    }
  }

  private static Kubernetes kubernetes(Reader reader) {
    Install install =
        reader.choice(
            Key.KUBERNETES_INSTALL,
            Map.of("true", Install.KEPT, "temporary", Install.TEMPORARY, "false", Install.NOTHING),
            "false");
    Optional<InetSocketAddress> gateway =
        reader.get(Key.KUBERNETES_GATEWAY).map(Configuration::gatewayForPods);
    switch (install) {
      case NOTHING -> {
        if (gateway.isEmpty()) {
          throw new ConfigurationException(
              "FOREDECK_KUBERNETES_GATEWAY is not set: the driver kubernetes needs an egress"
                  + " gateway (deploy/kubernetes/gateway.yaml), ADDRESS:PORT as pods reach it and"
                  + " its control port in FOREDECK_GATEWAY; FOREDECK_KUBERNETES_INSTALL=true sets"
                  + " one up");
        }
      }
      case TEMPORARY -> {
        if (gateway.isPresent()) {
          throw new ConfigurationException(
              "FOREDECK_KUBERNETES_GATEWAY is set beside FOREDECK_KUBERNETES_INSTALL=temporary,"
                  + " which sets up a gateway of its own: leave one of them out");
        }
      }
      case KEPT -> {}
    }
    Reach reach =
        reader.choice(
            Key.KUBERNETES_REACH,
            Map.of("pod-ip", Reach.POD_IP, "port-forward", Reach.PORT_FORWARD),
            "pod-ip");
    List<String> admit =
        Arrays.stream(reader.get(Key.KUBERNETES_ADMIT).orElse("").split(",", -1))
            .map(String::strip)
            .filter(network -> !network.isEmpty())
            .toList();
    for (String network : admit) {
      if (!network.matches("[0-9]{1,3}([.][0-9]{1,3}){3}(/[0-9]{1,2})?")) {
        throw new ConfigurationException(
            "FOREDECK_KUBERNETES_ADMIT holds '"
                + network
                + "': it must be IPv4 addresses or networks, as 10.1.0.0/16");
      }
    }
    if (admit.isEmpty() && reach == Reach.POD_IP) {
      throw new ConfigurationException(
          "FOREDECK_KUBERNETES_ADMIT is not set: the addresses that control planes reach pods from,"
              + " as 10.1.0.0/16 (not needed with FOREDECK_KUBERNETES_REACH=port-forward)");
    }
    return new Kubernetes(
        reader.get(Key.KUBERNETES_NAMESPACE).orElse("foredeck-sandboxes"),
        Path.of(reader.required(Key.KUBERNETES_TEMPLATES, "the file of templates"))
            .toAbsolutePath()
            .normalize(),
        gateway,
        reader.get(Key.KUBERNETES_GATEWAY_NAMESPACE).orElse("foredeck"),
        admit,
        reach,
        reader.choice(
            Key.KUBERNETES_ISOLATION,
            Map.of(
                "pod-firewall", Isolation.POD_FIREWALL,
                "network-policy", Isolation.NETWORK_POLICY),
            "pod-firewall"),
        install);
  }

  /// Rules in pods hold addresses.
  private static InetSocketAddress gatewayForPods(String text) {
    String key = Key.KUBERNETES_GATEWAY.variable();
    int colon = text.lastIndexOf(':');
    InetAddress address = literal(key, text.substring(0, Math.max(0, colon)));
    if (!(address instanceof Inet4Address)) {
      throw new ConfigurationException(key + " must be an IPv4 address");
    }
    return new InetSocketAddress(address, port(key, text.substring(colon + 1), 1));
  }

  private static DriverKind driver(String name) {
    return switch (name) {
      case "local" -> DriverKind.LOCAL;
      case "docker" -> DriverKind.DOCKER;
      case "simulated" -> DriverKind.SIMULATED;
      case "kubernetes" -> DriverKind.KUBERNETES;
      case String other ->
          throw new ConfigurationException(
              "FOREDECK_DRIVER is '"
                  + other
                  + "': it must be local, docker, kubernetes or simulated");
    };
  }

  /// Our own key, or the one that every program of Docker's reads.
  private static Optional<URI> dockerHost(Reader reader, Map<String, String> environment) {
    Optional<String> text =
        reader
            .get(Key.DOCKER_HOST)
            .or(() ->
                Optional.ofNullable(environment.get("DOCKER_HOST"))
                    .filter(value -> !value.isBlank()));
    try {
      return text.map(String::strip).map(URI::create);
    } catch (IllegalArgumentException _) {
      throw new ConfigurationException(
          "FOREDECK_DOCKER_HOST is '" + text.orElse("") + "': it must be unix:///PATH");
    }
  }

  private static Map<String, String> templates(String text) {
    Map<String, String> templates = new LinkedHashMap<>();
    for (String template : text.split(",", -1)) {
      if (template.isBlank()) {
        continue;
      }
      int equals = template.indexOf('=');
      String name = template.substring(0, Math.max(0, equals)).strip();
      String image = template.substring(equals + 1).strip();
      if (!name.matches("[a-z][a-z0-9-]{0,62}") || image.isEmpty() || image.contains(" ")) {
        throw new ConfigurationException(
            "FOREDECK_DOCKER_TEMPLATES holds '"
                + template
                + "': a template is NAME=IMAGE, its name in lower case letters, digits and dashes");
      }
      if (templates.put(name, image) != null) {
        throw new ConfigurationException(
            "FOREDECK_DOCKER_TEMPLATES names the template " + name + " twice");
      }
    }
    return templates;
  }

  static Map<String, InetSocketAddress> pins(String text) {
    Map<String, InetSocketAddress> pins = new LinkedHashMap<>();
    for (String pin : text.split(",", -1)) {
      if (pin.isBlank()) {
        continue;
      }
      int equals = pin.indexOf('=');
      int colon = pin.lastIndexOf(':');
      if (equals < 1 || colon < equals) {
        throw new ConfigurationException(
            "FOREDECK_EGRESS_PINS holds '" + pin + "': a pin is HOST[:PORT]=ADDRESS:PORT");
      }
      String address = pin.substring(equals + 1, colon).strip();
      pins.put(
          pin.substring(0, equals).strip(),
          new InetSocketAddress(
              literal("FOREDECK_EGRESS_PINS", address),
              port("FOREDECK_EGRESS_PINS", pin.substring(colon + 1).strip(), 1)));
    }
    return pins;
  }

  private static InetAddress literal(String key, String address) {
    try {
      return InetAddress.ofLiteral(address.replaceAll("^\\[(.*)]$", "$1"));
    } catch (IllegalArgumentException e) {
      throw new ConfigurationException(key + ": '" + address + "' must be an address, not a name");
    }
  }

  private static int port(String key, String text, int least) {
    try {
      int port = Integer.parseInt(text);
      if (port >= least && port <= 65535) {
        return port;
      }
    } catch (NumberFormatException _) {
      // Said below.
    }
    throw new ConfigurationException(
        key + ": '" + text + "' is not a port between " + least + " and 65535");
  }
}
