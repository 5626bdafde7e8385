package dev.foredeck.egress;

import static dev.foredeck.egress.RawClient.head;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/// What is true of unix sockets alone: the files, and a recorder in the same process.
@Timeout(60)
class HttpSocketTest {
  private static HttpEgressGateway gateway(GatewayFixture fixture) {
    return (HttpEgressGateway) fixture.gateway;
  }

  private static EgressLimits twoPending() {
    EgressLimits all = EgressLimits.DEFAULT;
    return new EgressLimits(
        all.connections(),
        all.connectionsPerSecond(),
        all.headBytes(),
        all.headers(),
        all.helloBytes(),
        all.bytesPerFlow(),
        all.bytesPerSandbox(),
        all.bytesPerSecond(),
        all.headMillis(),
        all.resolveMillis(),
        all.connectMillis(),
        all.idleMillis(),
        all.totalMillis(),
        all.lookups(),
        2);
  }

  @Test
  void losesNoFlowToARecorderThatIsSlowOrFails() throws Exception {
    Path folder = Files.createTempDirectory("egress");
    Path socket = folder.resolve("s");
    Semaphore pace = new Semaphore(0);
    AtomicLong recorded = new AtomicLong();
    try (HttpEgressGateway gateway =
        new HttpEgressGateway(
            twoPending(), Pins.NONE, name -> List.of(), Set::of, System::nanoTime)) {
      gateway.open(
          GatewayFixture.SANDBOX,
          socket,
          GatewayFixture.RULES,
          flow -> {
            pace.acquireUninterruptibly();
            if (recorded.incrementAndGet() % 2 == 0) {
              throw new IllegalStateException("the log is not there");
            }
          });
      List<RawClient> clients = new ArrayList<>();
      for (int i = 0; i < 20; i++) {
        RawClient client = new RawClient(SocketChannel.open(UnixDomainSocketAddress.of(socket)));
        client.send(head("GET http://no.example/ HTTP/1.1", "Host: no.example"));
        clients.add(client);
      }
      pace.release(20);
      for (RawClient client : clients) {
        assertThat(client.readAll()).startsWith("HTTP/1.1 403 ");
        client.close();
      }
      gateway.close(GatewayFixture.SANDBOX);
      assertThat(recorded).hasValue(20);
    } finally {
      Files.delete(folder);
    }
  }

  @Test
  void ownsItsSocketAndNothingElse() throws Exception {
    try (GatewayFixture fixture = GatewayFixture.pinned(Way.SOCKET, EgressLimits.DEFAULT)) {
      assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(fixture.socket)))
          .isEqualTo("rw-rw-rw-");
      Id other = new Id("sbx0000000000000002");
      assertThatThrownBy(
              () -> gateway(fixture).open(other, fixture.socket, GatewayFixture.RULES, _ -> {}))
          .hasMessageContaining("another sandbox");
      Path file = Files.createFile(fixture.folder.resolve("file"));
      assertThatThrownBy(() -> gateway(fixture).open(other, file, GatewayFixture.RULES, _ -> {}))
          .hasMessageContaining("other than a socket");
      assertThat(file).exists();
      Files.delete(file);
      Path deep = fixture.folder.resolve("x".repeat(100));
      assertThatThrownBy(() -> gateway(fixture).open(other, deep, GatewayFixture.RULES, _ -> {}))
          .hasMessageContaining("107");
      Path stale = fixture.folder.resolve("stale");
      try (ServerSocketChannel gone =
          ServerSocketChannel.open(java.net.StandardProtocolFamily.UNIX)) {
        gone.bind(UnixDomainSocketAddress.of(stale));
      }
      assertThat(stale).exists();
      gateway(fixture).open(other, stale, GatewayFixture.RULES, _ -> {});
      SocketChannel.open(UnixDomainSocketAddress.of(stale)).close();
      gateway(fixture).close();
      assertThat(stale).doesNotExist();
      assertThatThrownBy(() -> gateway(fixture).open(other, stale, GatewayFixture.RULES, _ -> {}))
          .hasMessageContaining("closed");
    }
  }
}
