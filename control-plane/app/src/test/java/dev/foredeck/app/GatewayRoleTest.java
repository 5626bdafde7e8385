package dev.foredeck.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.app.Configuration.ConfigurationException;
import dev.foredeck.core.DeploymentTls;
import dev.foredeck.core.Hashes;
import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway.Verdict;
import dev.foredeck.core.egress.EgressPath;
import dev.foredeck.egress.Dialer;
import dev.foredeck.egress.LinkKey;
import dev.foredeck.egress.LinkLimits;
import dev.foredeck.egress.RemoteEgressGateway;
import dev.foredeck.protocol.CertificatePin;
import java.io.BufferedReader;
import java.io.IOException;
import java.net.InetAddress;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLSocket;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/// `foredeck gateway`: what it takes for a configuration, and the role as a process.
@Timeout(120)
class GatewayRoleTest {
  private static final LinkKey KEY = LinkKey.of(new byte[] {1, 2, 3});

  private final DeploymentTls tls = DeploymentTls.generate(new SecureRandom());
  private final Map<String, String> environment = new HashMap<>();

  @TempDir Path folder;

  @BeforeEach
  void configure() throws IOException {
    environment.put("FOREDECK_GATEWAY_CERTIFICATE", write("deployment.pem", tls.toPem()));
    environment.put("FOREDECK_GATEWAY_KEY", write("gateway.key", KEY.text() + "\n"));
    for (String port : new String[] {"LISTEN", "CONTROL", "HEALTH"}) {
      environment.put("FOREDECK_GATEWAY_" + port, "127.0.0.1:0");
    }
  }

  private String write(String name, String text) throws IOException {
    return Files.writeString(folder.resolve(name), text).toString();
  }

  @Test
  void takesATlsSecretAsKubernetesMountsIt() throws Exception {
    String pem = tls.toPem();
    int key = pem.indexOf("-----BEGIN PRIVATE");
    write("tls.crt", pem.substring(0, key));
    write("tls.key", pem.substring(key));
    environment.put("FOREDECK_GATEWAY_CERTIFICATE", folder.toString());
    GatewayConfiguration configuration = GatewayConfiguration.of(environment);
    assertThat(configuration.tls().pin()).isEqualTo(tls.pin());
    assertThat(configuration.toString()).doesNotContain(KEY.text());
  }

  @Test
  void listensEverywhereWhereItIsNotTold() {
    environment.keySet().removeIf(key -> !key.endsWith("CERTIFICATE") && !key.endsWith("_KEY"));
    GatewayConfiguration configuration = GatewayConfiguration.of(environment);
    assertThat(configuration.bridges().getPort()).isEqualTo(3129);
    assertThat(configuration.controlPlanes().getPort()).isEqualTo(3130);
    assertThat(configuration.health().getPort()).isEqualTo(3131);
  }

  @Test
  void saysWhatIsWrongAndNoSecret() throws Exception {
    String secret = "ab".repeat(31);
    Map<String, String> wrong = new HashMap<>();
    wrong.put("FOREDECK_GATEWAY_KEY", write("short.key", secret));
    wrong.put("FOREDECK_GATEWAY_CERTIFICATE", write("not.pem", secret));
    wrong.put("FOREDECK_GATEWAY_LISTEN", "3129");
    wrong.put("FOREDECK_GATEWAY_CONTROL", "127.0.0.1:70000");
    wrong.put("FOREDECK_EGRESS_PINS", "a.test=b.test:1");
    wrong.put("FOREDECK_LISTEN", "127.0.0.1:7070");
    wrong.forEach((key, value) -> {
      Map<String, String> changed = new HashMap<>(environment);
      changed.put(key, value);
      assertThatThrownBy(() -> GatewayConfiguration.of(changed))
          .as(key)
          .isInstanceOf(ConfigurationException.class)
          .hasMessageContaining(key)
          .message()
          .doesNotContain(secret);
    });
    for (String needed : new String[] {"FOREDECK_GATEWAY_KEY", "FOREDECK_GATEWAY_CERTIFICATE"}) {
      Map<String, String> changed = new HashMap<>(environment);
      changed.remove(needed);
      assertThatThrownBy(() -> GatewayConfiguration.of(changed))
          .hasMessageContaining(needed + " is not set");
      changed.put(needed, folder.resolve("nowhere").toString());
      assertThatThrownBy(() -> GatewayConfiguration.of(changed))
          .hasMessageContaining("cannot be read");
    }
  }

  private Process start() throws IOException {
    ProcessBuilder builder =
        new ProcessBuilder(
            Path.of(System.getProperty("java.home"), "bin", "java").toString(),
            "-cp",
            System.getProperty("java.class.path"),
            "dev.foredeck.app.Main",
            "gateway");
    builder.environment().keySet().removeIf(key -> key.startsWith("FOREDECK_"));
    builder.environment().putAll(environment);
    builder.redirectError(folder.resolve("log").toFile());
    return builder.start();
  }

  @Test
  void refusesToStartWithExitCode2() throws Exception {
    environment.put("FOREDECK_GATEWAY_PORT", "tcp://10.96.0.7:3129");
    Process process = start();
    assertThat(process.waitFor(60, TimeUnit.SECONDS)).isTrue();
    assertThat(process.exitValue()).isEqualTo(2);
    assertThat(folder.resolve("log"))
        .content()
        .startsWith("foredeck: FOREDECK_GATEWAY_PORT is not a key")
        .doesNotContain("\tat ");
  }

  @Test
  void servesASandboxSaysOkAndDrains() throws Exception {
    Process process = start();
    try (BufferedReader out = process.inputReader()) {
      String ready = String.valueOf(out.readLine());
      assertThat(ready).startsWith("foredeck gateway ready 127.0.0.1:");
      String[] words = ready.split(" ");
      try (HttpClient client = HttpClient.newHttpClient()) {
        URI health = URI.create("http://" + words[5] + "/healthz");
        assertThat(
                client.send(HttpRequest.newBuilder(health).build(), BodyHandlers.ofString()).body())
            .isEqualTo("ok\n");
      }
      LinkedBlockingQueue<String> rules = new LinkedBlockingQueue<>();
      int control = port(words[4]);
      try (RemoteEgressGateway plane =
          new RemoteEgressGateway(
              Map.of(words[4], Dialer.to("127.0.0.1", control)),
              CertificatePin.of(tls.pin()),
              KEY,
              "plane",
              impatient(),
              System::nanoTime,
              new SecureRandom())) {
        String credential = "e".repeat(64);
        Id sandbox = new Id("sbx0000000000000001");
        plane.open(
            sandbox,
            new EgressPath.Credential(Hashes.sha256(credential)),
            (host, port, method, path) -> new Verdict(false, "no-web", "not for " + host),
            flow -> rules.add(flow.rule()));
        assertThat(ask(port(words[3]), sandbox, credential))
            .startsWith("HTTP/1.1 403 Denied by Foredeck (no-web): not for site.test");
        assertThat(rules.poll(20, TimeUnit.SECONDS)).isEqualTo("no-web");
        process.destroy();
        assertThat(process.waitFor(60, TimeUnit.SECONDS)).isTrue();
        assertThat(process.exitValue()).isZero();
        assertThat(folder.resolve("log")).content().doesNotContain(credential, KEY.text());
      }
    } finally {
      process.destroyForcibly();
    }
  }

  /// Waits for a gateway that is gone no longer than a test wants to.
  private static LinkLimits impatient() {
    LinkLimits all = LinkLimits.DEFAULT;
    return new LinkLimits(
        all.strangers(),
        all.strangersPerAddress(),
        all.greetingMillis(),
        all.penaltyMillis(),
        all.links(),
        all.sandboxes(),
        all.flows(),
        all.silenceMillis(),
        all.answerMillis(),
        all.graceMillis(),
        all.keepMillis(),
        all.openMillis(),
        200,
        all.mostRetryMillis());
  }

  private static int port(String address) {
    return Integer.parseInt(address.substring(address.lastIndexOf(':') + 1));
  }

  private String ask(int port, Id sandbox, String credential) throws IOException {
    try (SSLSocket socket =
        CertificatePin.of(tls.pin()).over(new Socket(InetAddress.getLoopbackAddress(), port))) {
      String request =
          "FOREDECK/1 "
              + sandbox
              + " "
              + credential
              + "\nGET http://site.test/ HTTP/1.1\r\nHost: site.test\r\n\r\n";
      socket.getOutputStream().write(request.getBytes(StandardCharsets.US_ASCII));
      return new String(socket.getInputStream().readAllBytes(), StandardCharsets.US_ASCII);
    }
  }
}
