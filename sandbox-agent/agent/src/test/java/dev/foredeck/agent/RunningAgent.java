package dev.foredeck.agent;

import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.FramedConnection;
import dev.foredeck.protocol.Message;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.StandardProtocolFamily;
import java.net.URI;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.ThreadLocalRandom;

/// A real agent as a process of its own, and the control plane's end of its socket.
final class RunningAgent implements AutoCloseable {
  static final String TOKEN = "a-token-that-nobody-guesses";

  private final ServerSocketChannel server;
  private final Process process;
  private final Path workspace;

  private RunningAgent(ServerSocketChannel server, Process process, Path workspace) {
    this.server = server;
    this.process = process;
    this.workspace = workspace;
  }

  static RunningAgent start(Path folder) throws IOException {
    return start(folder, List.of(), Map.of());
  }

  /// @param prefix words before the agent's command, as `unshare ...`
  static RunningAgent start(Path folder, List<String> prefix, Map<String, String> environment)
      throws IOException {
    Path socket = folder.resolve("agent.sock");
    Path workspace = Files.createDirectories(folder.resolve("workspace"));
    ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    server.bind(UnixDomainSocketAddress.of(socket));
    List<String> command = new ArrayList<>(prefix);
    command.addAll(
        List.of(
            System.getProperty("java.home") + "/bin/java",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xmx48m",
            "-Xshare:auto",
            "-Xrs",
            "--enable-native-access=ALL-UNNAMED",
            "-cp",
            location(Agent.class) + ":" + location(Message.class),
            Agent.class.getName()));
    ProcessBuilder builder = new ProcessBuilder(command);
    builder.redirectError(ProcessBuilder.Redirect.INHERIT);
    builder.environment().clear();
    builder.environment().put("FOREDECK_SOCKET", socket.toString());
    builder.environment().put("FOREDECK_TOKEN", TOKEN);
    builder.environment().put("FOREDECK_WORKSPACE", workspace.toString());
    builder.environment().putAll(environment);
    Process process = builder.start();
    RunningAgent agent = new RunningAgent(server, process, workspace);
    // Whoever waits for an agent that is gone shall hear of it.
    Thread _ = Thread.ofVirtual().start(agent::closeWhenItEnds);
    return agent;
  }

  private void closeWhenItEnds() {
    try {
      int _ = process.waitFor();
      server.close();
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static Path location(Class<?> type) {
    return Path.of(URI.create(type.getProtectionDomain().getCodeSource().getLocation().toString()));
  }

  Path workspace() {
    return workspace;
  }

  long pid() {
    return process.pid();
  }

  boolean isAlive() {
    return process.isAlive();
  }

  /// Takes the spare connection, after its greeting.
  Connection connect() throws IOException {
    Connection connection = FramedConnection.over(server.accept());
    Message first = connection.receive();
    if (!(first instanceof Message.Greeting greeting) || !greeting.token().equals(TOKEN)) {
      throw new AssertionError("no greeting but " + first);
    }
    return connection;
  }

  Connection request(Message.Request request) throws IOException {
    Connection connection = connect();
    connection.send(request);
    return connection;
  }

  /// For a request with one answer.
  Message ask(Message.Request request) throws IOException {
    try (Connection connection = request(request)) {
      return Objects.requireNonNull(connection.receive());
    }
  }

  static String newCallId() {
    return "call%016x".formatted(ThreadLocalRandom.current().nextLong());
  }

  static Message.StartProcess shell(String callId, String command) {
    return process(callId, 60_000, 5_000, "sh", "-c", command);
  }

  static Message.StartProcess process(
      String callId, long timeoutMillis, long graceMillis, String... argv) {
    return new Message.StartProcess(
        callId,
        List.of(argv),
        Map.of("PATH", "/usr/local/bin:/usr/bin:/bin", "K", "v w"),
        "/",
        Optional.empty(),
        false,
        timeoutMillis,
        graceMillis,
        0,
        0);
  }

  static Message.StartProcess withStdin(Message.StartProcess p) {
    return new Message.StartProcess(
        p.callId(),
        p.argv(),
        p.env(),
        p.cwd(),
        p.script(),
        true,
        p.timeoutMillis(),
        p.graceMillis(),
        p.stdoutOffset(),
        p.stderrOffset());
  }

  @Override
  public void close() throws IOException {
    process.descendants().forEach(ProcessHandle::destroyForcibly);
    process.destroyForcibly();
    server.close();
    try {
      process.waitFor();
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    }
  }
}
