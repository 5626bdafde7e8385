package dev.foredeck.app;

import dev.foredeck.driver.kubernetes.KubernetesConfig.Isolation;
import dev.foredeck.driver.kubernetes.KubernetesConfig.Reach;
import java.net.Inet4Address;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.file.Path;
import java.time.Duration;
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
/// @param kubernetes present with the driver `kubernetes`
/// @param keepOutput how long output and copied-out files are kept
/// @param keepEvents how long events and calls are kept: decisions outlive output
record Configuration(
    String listenHost,
    int listenPort,
    Path dataDir,
    DriverKind driver,
    Optional<String> databaseUrl,
    Map<String, InetSocketAddress> egressPins,
    Optional<Path> agentBundle,
    Optional<Kubernetes> kubernetes,
    Duration keepOutput,
    Duration keepEvents) {

  /// What the driver `kubernetes` needs, beside the KUBECONFIG that kubectl uses too.
  ///
  /// @param namespace where the sandboxes' pods are
  /// @param templates the operator's file of templates
  /// @param gateway the egress gateway, as pods reach it
  /// @param admit IPv4 addresses or networks that control planes dial pods from
  /// @param install whether to set up namespace and admission policy first
  record Kubernetes(
      String namespace,
      Path templates,
      InetSocketAddress gateway,
      List<String> admit,
      Reach reach,
      Isolation isolation,
      boolean install) {}

  enum DriverKind {
    LOCAL,
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

  /// Read by the launcher script, the CLI or the logging configuration.
  private static final Set<String> ELSEWHERE =
      Set.of("FOREDECK_LOG", "FOREDECK_UP_COMMAND", "FOREDECK_URL", "FOREDECK_KEY");

  private enum Key {
    LISTEN,
    DATA,
    DRIVER,
    DATABASE_URL,
    EGRESS_PINS,
    AGENT_BUNDLE,
    KEEP_OUTPUT_DAYS,
    KEEP_EVENTS_DAYS,
    KUBERNETES_NAMESPACE,
    KUBERNETES_TEMPLATES,
    KUBERNETES_GATEWAY,
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
    for (String variable : new TreeSet<>(environment.keySet())) {
      if (variable.startsWith(PREFIX)
          && !known.contains(variable)
          && !ELSEWHERE.contains(variable)) {
        throw new ConfigurationException(
            variable + " is not a key of Foredeck; the keys are " + String.join(", ", known));
      }
    }
    Reader reader = new Reader(options, environment);
    String listen = reader.get(Key.LISTEN).orElse("127.0.0.1:7070");
    int colon = listen.lastIndexOf(':');
    if (colon < 1) {
      throw new ConfigurationException(
          "FOREDECK_LISTEN is '" + listen + "': it must be HOST:PORT, as 127.0.0.1:7070");
    }
    String host = listen.substring(0, colon);
    if (host.startsWith("[") && host.endsWith("]")) {
      host = host.substring(1, host.length() - 1);
    }
    DriverKind driver = driver(reader.get(Key.DRIVER).orElse("local"));
    return new Configuration(
        host,
        port("FOREDECK_LISTEN", listen.substring(colon + 1), 0),
        Path.of(reader.get(Key.DATA).orElse("/var/lib/foredeck")).toAbsolutePath().normalize(),
        driver,
        reader.get(Key.DATABASE_URL),
        pins(reader.get(Key.EGRESS_PINS).orElse("")),
        reader.get(Key.AGENT_BUNDLE).map(path -> Path.of(path).toAbsolutePath().normalize()),
        driver == DriverKind.KUBERNETES ? Optional.of(kubernetes(reader)) : Optional.empty(),
        reader.days(Key.KEEP_OUTPUT_DAYS, 30),
        reader.days(Key.KEEP_EVENTS_DAYS, 365));
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

    Duration days(Key key, int otherwise) {
      String text = get(key).map(String::strip).orElse(Integer.toString(otherwise));
      if (text.matches("[0-9]{1,5}")) {
        int days = Integer.parseInt(text);
        if (days >= LEAST_DAYS && days <= MOST_DAYS) {
          return Duration.ofDays(days);
        }
      }
      throw new ConfigurationException(
          key.variable()
              + " is '"
              + text
              + "': it must be a number of days from "
              + LEAST_DAYS
              + " to "
              + MOST_DAYS);
    }
  }

  private static Kubernetes kubernetes(Reader reader) {
    String gateway = reader.required(Key.KUBERNETES_GATEWAY, "ADDRESS:PORT as pods reach it");
    int colon = gateway.lastIndexOf(':');
    InetAddress address =
        literal(Key.KUBERNETES_GATEWAY.variable(), gateway.substring(0, Math.max(0, colon)));
    if (!(address instanceof Inet4Address)) {
      throw new ConfigurationException("FOREDECK_KUBERNETES_GATEWAY must be an IPv4 address");
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
        new InetSocketAddress(
            address, port(Key.KUBERNETES_GATEWAY.variable(), gateway.substring(colon + 1), 1)),
        admit,
        reach,
        reader.choice(
            Key.KUBERNETES_ISOLATION,
            Map.of(
                "pod-firewall", Isolation.POD_FIREWALL,
                "network-policy", Isolation.NETWORK_POLICY),
            "pod-firewall"),
        reader.choice(Key.KUBERNETES_INSTALL, Map.of("true", true, "false", false), "false"));
  }

  private static DriverKind driver(String name) {
    return switch (name) {
      case "local" -> DriverKind.LOCAL;
      case "simulated" -> DriverKind.SIMULATED;
      case "kubernetes" -> DriverKind.KUBERNETES;
      case "docker" ->
          throw new ConfigurationException(
              "FOREDECK_DRIVER is 'docker': not-supported yet; there are local, kubernetes and"
                  + " simulated");
      case String other ->
          throw new ConfigurationException(
              "FOREDECK_DRIVER is '" + other + "': it must be local, kubernetes or simulated");
    };
  }

  private static Map<String, InetSocketAddress> pins(String text) {
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
