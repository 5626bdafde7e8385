package dev.foredeck.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.app.Configuration.ConfigurationException;
import dev.foredeck.app.Configuration.DriverKind;
import dev.foredeck.app.Configuration.Install;
import dev.foredeck.driver.kubernetes.KubernetesConfig.Isolation;
import dev.foredeck.driver.kubernetes.KubernetesConfig.Reach;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class ConfigurationTest {

  @Test
  void hasADefaultForEveryKey() {
    Configuration configuration = Configuration.of(Map.of(), Map.of());
    assertThat(configuration.listenHost()).isEqualTo("127.0.0.1");
    assertThat(configuration.listenPort()).isEqualTo(7070);
    assertThat(configuration.dataDir()).isEqualTo(Path.of("/var/lib/foredeck"));
    assertThat(configuration.driver()).isEqualTo(DriverKind.LOCAL);
    assertThat(configuration.databaseUrl()).isEmpty();
    assertThat(configuration.egressPins()).isEmpty();
    assertThat(configuration.keepOutput()).isEqualTo(Duration.ofDays(30));
    assertThat(configuration.keepEvents()).isEqualTo(Duration.ofDays(365));
  }

  @Test
  void prefersAnOptionToTheEnvironment() {
    Configuration configuration =
        Configuration.of(
            Map.of("listen", "0.0.0.0:1", "driver", "simulated"),
            Map.of("FOREDECK_LISTEN", "127.0.0.1:2", "FOREDECK_DATA", "/srv/x"));
    assertThat(configuration.listenHost()).isEqualTo("0.0.0.0");
    assertThat(configuration.listenPort()).isEqualTo(1);
    assertThat(configuration.driver()).isEqualTo(DriverKind.SIMULATED);
    assertThat(configuration.dataDir()).isEqualTo(Path.of("/srv/x"));
  }

  @Test
  void refusesAnUnknownKey() {
    assertThatThrownBy(() -> Configuration.of(Map.of(), Map.of("FOREDECK_LISTN", "x")))
        .isInstanceOf(ConfigurationException.class)
        .hasMessageContaining("FOREDECK_LISTN is not a key")
        .hasMessageContaining("FOREDECK_LISTEN");
  }

  @Test
  void keepsOutputAndEventsForAsLongAsItIsTold() {
    Configuration configuration =
        Configuration.of(
            Map.of(),
            Map.of("FOREDECK_KEEP_OUTPUT_DAYS", "7", "FOREDECK_KEEP_EVENTS_DAYS", "36500"));
    assertThat(configuration.keepOutput()).isEqualTo(Duration.ofDays(7));
    assertThat(configuration.keepEvents()).isEqualTo(Duration.ofDays(36_500));
    for (String days : new String[] {"0", "1", "-3", "36501", "7d", "99999999999"}) {
      assertThatThrownBy(
              () -> Configuration.of(Map.of(), Map.of("FOREDECK_KEEP_EVENTS_DAYS", days)))
          .as(days)
          .isInstanceOf(ConfigurationException.class)
          .hasMessageContaining("FOREDECK_KEEP_EVENTS_DAYS");
    }
  }

  @Test
  void hasAsManySandboxesAsItIsTold() {
    Configuration configuration =
        Configuration.of(
            Map.of(), Map.of("FOREDECK_SANDBOXES", "10000", "FOREDECK_SANDBOXES_PER_TENANT", "1"));
    assertThat(configuration.sandboxes()).isEqualTo(10_000);
    assertThat(configuration.sandboxesPerTenant()).isEqualTo(1);
    for (String number : new String[] {"0", "10001", "-1", "many", "1e3"}) {
      assertThatThrownBy(() -> Configuration.of(Map.of(), Map.of("FOREDECK_SANDBOXES", number)))
          .as(number)
          .isInstanceOf(ConfigurationException.class)
          .hasMessage(
              "FOREDECK_SANDBOXES is '%s': it must be a number of sandboxes from 1 to 10000",
              number);
    }
  }

  @Test
  void takesAnIpv6Address() {
    Configuration configuration =
        Configuration.of(Map.of(), Map.of("FOREDECK_LISTEN", "[::1]:7070"));
    assertThat(configuration.listenHost()).isEqualTo("::1");
  }

  @Test
  void refusesAPortThatIsNone() {
    for (String listen : new String[] {"127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", ":80"}) {
      assertThatThrownBy(() -> Configuration.of(Map.of(), Map.of("FOREDECK_LISTEN", listen)))
          .as(listen)
          .isInstanceOf(ConfigurationException.class)
          .hasMessageContaining("FOREDECK_LISTEN");
    }
  }

  @Test
  void readsPinsToAddressesOnly() {
    Configuration configuration =
        Configuration.of(
            Map.of(), Map.of("FOREDECK_EGRESS_PINS", "a.test=127.0.0.1:80, b.test:8080=[::1]:81"));
    assertThat(configuration.egressPins())
        .containsEntry("a.test", new InetSocketAddress(InetAddress.ofLiteral("127.0.0.1"), 80))
        .containsEntry("b.test:8080", new InetSocketAddress(InetAddress.ofLiteral("::1"), 81));
    for (String pin :
        new String[] {"a.test", "a.test=localhost:80", "a.test=127.0.0.1:0", "=x:1"}) {
      assertThatThrownBy(() -> Configuration.of(Map.of(), Map.of("FOREDECK_EGRESS_PINS", pin)))
          .as(pin)
          .isInstanceOf(ConfigurationException.class)
          .hasMessageContaining("FOREDECK_EGRESS_PINS");
    }
  }

  @Test
  void oneRunscIsMeantWhereverGvisorIsAskedFor() {
    Map<String, String> environment =
        Map.of("FOREDECK_RUNTIME", "runsc", "FOREDECK_RUNSC", "/opt/gvisor/runsc");
    Configuration configuration = Configuration.of(Map.of(), environment);
    assertThat(configuration.runtime().program()).isEqualTo("/opt/gvisor/runsc");
    assertThat(configuration.strongRuntime()).isEqualTo(configuration.runtime());
    assertThat(Configuration.of(Map.of(), Map.of("FOREDECK_RUNTIME", "runsc")).runtime().program())
        .isEqualTo("runsc");
    assertThat(
            Configuration.of(Map.of(), Map.of("FOREDECK_RUNSC", "/opt/gvisor/runsc"))
                .runtime()
                .program())
        .isEqualTo("runc");
  }

  @Test
  void takesTheDockerDriversTemplatesInTheirOrder() {
    Configuration configuration =
        Configuration.of(
            Map.of("driver", "docker"),
            Map.of(
                "FOREDECK_DOCKER_TEMPLATES", "python=registry:5000/python@sha256:00, base=base:1",
                "FOREDECK_DOCKER_RUNTIME", "runsc",
                "DOCKER_HOST", "unix:///run/other.sock"));
    assertThat(configuration.driver()).isEqualTo(DriverKind.DOCKER);
    assertThat(configuration.dockerTemplates())
        .containsExactly(
            Map.entry("python", "registry:5000/python@sha256:00"), Map.entry("base", "base:1"));
    assertThat(configuration.dockerRuntime()).contains("runsc");
    assertThat(configuration.dockerHost()).contains(URI.create("unix:///run/other.sock"));
  }

  @Test
  void refusesTheDockerDriverWithoutTemplates() {
    assertThatThrownBy(() -> Configuration.of(Map.of("driver", "docker"), Map.of()))
        .isInstanceOf(ConfigurationException.class)
        .hasMessageContaining("FOREDECK_DOCKER_TEMPLATES is not set");
  }

  @Test
  void refusesATemplateThatIsNone() {
    for (String text : new String[] {"base", "=x", "base=", "Base=x", "a=b c", "a=x,a=y"}) {
      assertThatThrownBy(
              () -> Configuration.of(Map.of(), Map.of("FOREDECK_DOCKER_TEMPLATES", text)))
          .as(text)
          .isInstanceOf(ConfigurationException.class)
          .hasMessageContaining("FOREDECK_DOCKER_TEMPLATES");
    }
  }

  @Test
  void needsAGatewayOfItsOwnProcessOnACluster() {
    for (String key : new String[] {"FOREDECK_GATEWAY", "FOREDECK_KUBERNETES_GATEWAY"}) {
      Map<String, String> environment = new HashMap<>(KUBERNETES);
      environment.remove(key);
      assertThatThrownBy(() -> Configuration.of(Map.of(), environment))
          .isInstanceOf(ConfigurationException.class)
          .hasMessageContaining(key + " is not set");
    }
  }

  @Test
  void setsAGatewayUpWhereNoneIsNamed() {
    Map<String, String> environment = new HashMap<>(KUBERNETES);
    environment.remove("FOREDECK_GATEWAY");
    environment.remove("FOREDECK_KUBERNETES_GATEWAY");
    environment.put("FOREDECK_EGRESS_PINS", "mirror.test=10.0.0.7:443");
    for (Install install : List.of(Install.KEPT, Install.TEMPORARY)) {
      environment.put(
          "FOREDECK_KUBERNETES_INSTALL", install == Install.KEPT ? "true" : "temporary");
      Configuration.Kubernetes kubernetes =
          Configuration.of(Map.of(), environment).kubernetes().orElseThrow();
      assertThat(kubernetes.install()).isEqualTo(install);
      assertThat(kubernetes.gateway()).isEmpty();
      assertThat(kubernetes.gatewayNamespace()).isEqualTo("foredeck");
    }
    Map<String, String> both = new HashMap<>(KUBERNETES);
    both.put("FOREDECK_KUBERNETES_INSTALL", "temporary");
    assertThatThrownBy(() -> Configuration.of(Map.of(), both))
        .hasMessageContaining("leave one of them out");
  }

  @Test
  void namesGatewaysOfTheirOwnProcess() {
    Configuration configuration =
        Configuration.of(
            Map.of("driver", "simulated"), Map.of("FOREDECK_GATEWAY", "gw.example:3130, [::1]:1"));
    assertThat(configuration.gateways())
        .extracting(Configuration.HostAndPort::toString)
        .containsExactly("gw.example:3130", "[::1]:1");
    for (String gateways : new String[] {"gw", "gw:0", "gw:1,gw:1", "a:1,b:1,c:1,d:1,e:1"}) {
      assertThatThrownBy(() ->
              Configuration.of(Map.of("driver", "simulated"), Map.of("FOREDECK_GATEWAY", gateways)))
          .as(gateways)
          .isInstanceOf(ConfigurationException.class)
          .hasMessageContaining("FOREDECK_GATEWAY");
    }
  }

  @Test
  void refusesAGatewayWhereItWouldNotBeUsed() {
    assertThatThrownBy(() -> Configuration.of(Map.of(), Map.of("FOREDECK_GATEWAY", "gw:1")))
        .isInstanceOf(ConfigurationException.class)
        .hasMessageContaining("this host");
    assertThatThrownBy(() ->
            Configuration.of(
                Map.of("driver", "simulated"),
                Map.of("FOREDECK_GATEWAY", "gw:1", "FOREDECK_EGRESS_PINS", "a=127.0.0.1:1")))
        .isInstanceOf(ConfigurationException.class)
        .hasMessageContaining("FOREDECK_EGRESS_PINS");
  }

  private static final Map<String, String> KUBERNETES =
      Map.of(
          "FOREDECK_DRIVER", "kubernetes",
          "FOREDECK_GATEWAY", "10.1.2.3:3131",
          "FOREDECK_KUBERNETES_TEMPLATES", "/etc/foredeck/templates.yaml",
          "FOREDECK_KUBERNETES_GATEWAY", "10.1.2.3:3129",
          "FOREDECK_KUBERNETES_ADMIT", "10.2.0.0/16, 10.3.0.1");

  @Test
  void readsHowToUseACluster() {
    Configuration.Kubernetes kubernetes =
        Configuration.of(Map.of(), KUBERNETES).kubernetes().orElseThrow();

    assertThat(kubernetes.namespace()).isEqualTo("foredeck-sandboxes");
    assertThat(kubernetes.gateway().orElseThrow().getPort()).isEqualTo(3129);
    assertThat(kubernetes.admit()).containsExactly("10.2.0.0/16", "10.3.0.1");
    assertThat(kubernetes.reach()).isEqualTo(Reach.POD_IP);
    assertThat(kubernetes.isolation()).isEqualTo(Isolation.POD_FIREWALL);
    assertThat(kubernetes.install()).isEqualTo(Install.NOTHING);
  }

  @ParameterizedTest
  @CsvSource({
    "FOREDECK_KUBERNETES_TEMPLATES, ' '",
    "FOREDECK_KUBERNETES_GATEWAY, gateway:3129",
    "FOREDECK_KUBERNETES_GATEWAY, 10.1.2.3",
    "FOREDECK_KUBERNETES_GATEWAY, '[::1]:3129'",
    "FOREDECK_KUBERNETES_ADMIT, ' '",
    "FOREDECK_KUBERNETES_ADMIT, everybody",
    "FOREDECK_KUBERNETES_REACH, ingress",
    "FOREDECK_KUBERNETES_ISOLATION, none",
    "FOREDECK_KUBERNETES_INSTALL, 'yes'"
  })
  void refusesAClusterItCannotUse(String key, String value) {
    Map<String, String> environment = new HashMap<>(KUBERNETES);
    environment.put(key, value);

    assertThatThrownBy(() -> Configuration.of(Map.of(), environment))
        .isInstanceOf(ConfigurationException.class)
        .hasMessageContaining(key);
  }
}
