package dev.foredeck.agent;

import static dev.foredeck.agent.RunningAgent.newCallId;
import static dev.foredeck.agent.RunningAgent.shell;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assumptions.assumeThat;

import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/// The agent in the place that it has in a sandbox: process 1 of a pid namespace.
@Timeout(60)
class ProcessOneTest {
  @TempDir Path folder;

  private RunningAgent inNamespace() throws Exception {
    List<String> unshare =
        List.of("/usr/bin/unshare", "--pid", "--fork", "--mount-proc", "--kill-child");
    List<String> probe = new java.util.ArrayList<>(unshare);
    probe.add("/bin/true");
    assumeThat(Files.isExecutable(Path.of(unshare.getFirst()))).isTrue();
    assumeThat(new ProcessBuilder(probe).start().waitFor()).as("namespaces may be made").isZero();
    return RunningAgent.start(folder, unshare, Map.of("FOREDECK_PIDS", "200"));
  }

  private static String output(RunningAgent agent, String command) throws IOException {
    String callId = newCallId();
    String text;
    try (Connection connection = agent.request(shell(callId, command))) {
      text = Followed.toTheEnd(connection).text();
    }
    assertThat(agent.ask(new Message.Release(callId))).isEqualTo(new Message.Done());
    return text;
  }

  @Test
  void leavesNoZombiesAndIgnoresSignalsFromInside() throws Exception {
    try (RunningAgent agent = inNamespace()) {
      assertThat(output(agent, "cat /proc/1/comm")).isEqualTo("java\n");
      String orphans =
          "for i in 1 2 3 4 5 6 7 8 9 10; do (setsid sh -c 'sleep 0.1; exit 3' >/dev/null 2>&1 &) ;"
              + " done";
      assertThat(output(agent, orphans)).isEmpty();
      assertThat(output(agent, "kill -TERM 1; kill -INT 1; kill -HUP 1; kill -KILL 1; echo still"))
          .isEqualTo("still\n");
      String count = "sleep 0.5; grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
      assertThat(output(agent, count).strip()).isEqualTo("0");
      assertThat(agent.isAlive()).isTrue();
    }
  }

  @Test
  void givesChildrenALowerLimitOfProcessesThanItKeeps() throws Exception {
    try (RunningAgent agent = inNamespace()) {
      // The hard limit is lowered right after the start; what is forked before that has the soft
      // one.
      String limits = "sleep 1; grep processes /proc/self/limits | tr -s ' ' | cut -d' ' -f 3,4";
      assertThat(output(agent, limits).strip()).isEqualTo("168 168");
      // The agent's own is lowered for the moment of a start, which the child may see.
      String own = "sleep 1; grep processes /proc/1/limits | tr -s ' ' | cut -d' ' -f 3";
      assertThat(output(agent, own).strip()).isNotEqualTo("168");
    }
  }

  @Test
  void leadsTheLoopbackPortToTheGatewaysSocket() throws Exception {
    int port;
    try (ServerSocket free = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      port = free.getLocalPort();
    }
    UnixDomainSocketAddress gateway = UnixDomainSocketAddress.of(folder.resolve("egress.sock"));
    try (ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      server.bind(gateway);
      Map<String, String> environment =
          Map.of(
              "FOREDECK_EGRESS_SOCKET",
              gateway.getPath().toString(),
              "FOREDECK_BRIDGE_PORT",
              String.valueOf(port));
      try (RunningAgent agent = RunningAgent.start(folder, List.of(), environment);
          Connection _ = agent.connect();
          SocketChannel client = connect(port);
          SocketChannel upstream = server.accept()) {
        client.write(ByteBuffer.wrap(new byte[] {1, 2, 3}));
        client.shutdownOutput();
        assertThat(all(upstream)).isEqualTo(new byte[] {1, 2, 3});
        upstream.write(ByteBuffer.wrap(new byte[] {4, 5}));
        upstream.shutdownOutput();
        assertThat(all(client)).isEqualTo(new byte[] {4, 5});
      }
    }
  }

  /// The bridge listens shortly after the agent's start.
  private static SocketChannel connect(int port) throws Exception {
    while (true) {
      try {
        return SocketChannel.open(new InetSocketAddress(InetAddress.getLoopbackAddress(), port));
      } catch (IOException _) {
        Thread.sleep(20);
      }
    }
  }

  private static byte[] all(SocketChannel channel) throws IOException {
    ByteBuffer buffer = ByteBuffer.allocate(100);
    while (channel.read(buffer) >= 0) {
      // Reads to the end.
    }
    return java.util.Arrays.copyOf(buffer.array(), buffer.position());
  }
}
