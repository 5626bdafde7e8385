package dev.foredeck.app;

import dev.foredeck.app.Configuration.ConfigurationException;
import dev.foredeck.core.DeploymentTls;
import dev.foredeck.egress.LinkKey;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.UnknownHostException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Function;

/// What the operator configured for a gateway of its own process, all of it in the environment. An
/// unknown key refuses start-up.
///
/// @param bridges where sandboxes' bridges come
/// @param controlPlanes where control planes come
/// @param health where the kubelet asks
/// @param tls the deployment's certificate
/// @param key the secret that control planes prove to hold
/// @param pins the only way to a private address
record GatewayConfiguration(
    InetSocketAddress bridges,
    InetSocketAddress controlPlanes,
    InetSocketAddress health,
    DeploymentTls tls,
    LinkKey key,
    Map<String, InetSocketAddress> pins) {

  private static final String LISTEN = "FOREDECK_GATEWAY_LISTEN";
  private static final String CONTROL = "FOREDECK_GATEWAY_CONTROL";
  private static final String HEALTH = "FOREDECK_GATEWAY_HEALTH";
  private static final String CERTIFICATE = "FOREDECK_GATEWAY_CERTIFICATE";
  private static final String KEY = "FOREDECK_GATEWAY_KEY";
  private static final String PINS = "FOREDECK_EGRESS_PINS";
  private static final Set<String> KEYS = Set.of(LISTEN, CONTROL, HEALTH, CERTIFICATE, KEY, PINS);

  /// @throws ConfigurationException naming the key and what would be right
  static GatewayConfiguration of(Map<String, String> environment) {
    Configuration.refuseUnknown(KEYS, environment);
    return new GatewayConfiguration(
        address(environment, LISTEN, "0.0.0.0:3129"),
        address(environment, CONTROL, "0.0.0.0:3130"),
        address(environment, HEALTH, "0.0.0.0:3131"),
        file(
            environment,
            CERTIFICATE,
            "a PEM file with certificate and private key, or a folder with tls.crt and tls.key",
            DeploymentTls::parse),
        file(
            environment,
            KEY,
            "the file gateway.key of a control plane's data folder",
            LinkKey::parse),
        Configuration.pins(get(environment, PINS).orElse("")));
  }

  private static Optional<String> get(Map<String, String> environment, String key) {
    return Optional.ofNullable(environment.get(key)).filter(value -> !value.isBlank());
  }

  private static InetSocketAddress address(
      Map<String, String> environment, String key, String otherwise) {
    Configuration.HostAndPort address =
        Configuration.HostAndPort.parse(key, get(environment, key).orElse(otherwise), 0);
    try {
      return new InetSocketAddress(InetAddress.getByName(address.host()), address.port());
    } catch (UnknownHostException _) {
      throw new ConfigurationException(key + ": there is no host '" + address.host() + "'");
    }
  }

  /// @param meaning what the key has to name
  private static <T> T file(
      Map<String, String> environment, String key, String meaning, Function<String, T> parse) {
    Path path =
        Path.of(
            get(environment, key)
                .orElseThrow(
                    () -> new ConfigurationException(key + " is not set: it names " + meaning)));
    try {
      return parse.apply(read(path));
    } catch (IOException e) {
      throw new ConfigurationException(key + ": " + path + " cannot be read (" + e + ")");
    } catch (IllegalArgumentException e) {
      throw new ConfigurationException(
          key + ": " + path + " is not " + meaning + ": " + e.getMessage());
    }
  }

  /// A folder is a TLS secret as Kubernetes mounts it.
  private static String read(Path path) throws IOException {
    if (Files.isDirectory(path)) {
      return Files.readString(path.resolve("tls.crt"))
          + "\n"
          + Files.readString(path.resolve("tls.key"));
    }
    return Files.readString(path);
  }

  @Override
  public String toString() {
    return "GatewayConfiguration[" + bridges + ", " + controlPlanes + ", " + health + "]";
  }
}
