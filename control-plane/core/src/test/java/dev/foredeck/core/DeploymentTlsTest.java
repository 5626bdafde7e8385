package dev.foredeck.core;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.protocol.CertificatePin;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketException;
import java.security.SecureRandom;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLSocket;
import org.junit.jupiter.api.Test;

/// The deployment's end of TLS against the sandbox's.
class DeploymentTlsTest {
  private static final int SOCKET_MILLIS = 20_000;
  private final DeploymentTls deployment = DeploymentTls.generate(new SecureRandom());

  private interface End {
    String speak(Socket socket) throws IOException;
  }

  /// Says `sent` on its side and returns the four bytes that the other side said.
  private static String exchange(SSLSocket tls, String sent) throws IOException {
    try (tls) {
      tls.setSoTimeout(SOCKET_MILLIS);
      tls.getOutputStream().write(sent.getBytes(java.nio.charset.StandardCharsets.US_ASCII));
      return new String(
          tls.getInputStream().readNBytes(4), java.nio.charset.StandardCharsets.US_ASCII);
    }
  }

  /// What the side that dialled heard, and the side that was dialled.
  private static String connect(End dialling, End dialled) throws Exception {
    try (ServerSocket server = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      FutureTask<String> accepted = new FutureTask<>(() -> dialled.speak(server.accept()));
      Thread.ofVirtual().start(accepted);
      String heard;
      try {
        heard = dialling.speak(new Socket(InetAddress.getLoopbackAddress(), server.getLocalPort()));
      } catch (SocketException e) {
        // The other end was faster to hang up than to say why: it knows.
        String _ = accepted.get();
        throw e;
      }
      return heard + " " + accepted.get();
    }
  }

  @Test
  void speaksWithItsSandboxesWhoeverDials() throws Exception {
    CertificatePin pin = CertificatePin.of(deployment.pin());
    End ours = socket -> exchange(deployment.over(socket), "plan");
    End theirs = socket -> exchange(pin.over(socket), "agnt");

    assertThat(connect(ours, theirs)).isEqualTo("agnt plan");
    assertThat(connect(theirs, ours)).isEqualTo("plan agnt");
  }

  @Test
  void aSandboxSpeaksWithNoOtherDeployment() {
    DeploymentTls other = DeploymentTls.generate(new SecureRandom());
    CertificatePin pin = CertificatePin.of(deployment.pin());

    assertThatThrownBy(() ->
            connect(
                socket -> exchange(other.over(socket), "plan"),
                socket -> exchange(pin.over(socket), "agnt")))
        .isInstanceOfAny(SSLException.class, ExecutionException.class)
        .hasStackTraceContaining("certificate");
  }

  @Test
  void isReadAgainFromItsPem() throws Exception {
    DeploymentTls again = DeploymentTls.parse(deployment.toPem());

    assertThat(again.pin()).isEqualTo(deployment.pin());
    assertThat(
            connect(
                socket -> exchange(again.over(socket), "plan"),
                socket -> exchange(CertificatePin.of(deployment.pin()).over(socket), "agnt")))
        .isEqualTo("agnt plan");
  }

  @Test
  void tellsWhatIsWrongWithAPemAndNoSecret() {
    String pem = deployment.toPem();
    String secret = pem.substring(pem.indexOf("PRIVATE KEY-----") + 17).substring(0, 20);

    assertThatIllegalArgumentException()
        .isThrownBy(() -> DeploymentTls.parse(""))
        .withMessageContaining("BEGIN CERTIFICATE");
    assertThatIllegalArgumentException()
        .isThrownBy(() -> DeploymentTls.parse(pem.substring(0, pem.indexOf("-----BEGIN PRIVATE"))))
        .withMessageContaining("BEGIN PRIVATE KEY");
    assertThatIllegalArgumentException()
        .isThrownBy(() -> DeploymentTls.parse(pem.replace(secret, "AAAA")))
        .withMessageContaining("private key")
        .withMessageNotContaining(secret);
    assertThat(deployment.toString()).doesNotContain(secret);
  }

  @Test
  void aPinIsAHash() {
    assertThatIllegalArgumentException().isThrownBy(() -> CertificatePin.of("abc"));
  }
}
