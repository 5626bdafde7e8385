package dev.foredeck.agent;

import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.FramedConnection;
import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.LoopbackConnection;
import dev.foredeck.protocol.Message;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// The run from which the AOT cache is made (`bundle.sh`): an agent, and in the same process a
/// control plane that asks it for everything once. What runs here is loaded and linked when an
/// agent starts.
final class Training {
  private static final String CALL = "training0123456789";

  private final ServerSocketChannel server;

  private Training(ServerSocketChannel server) {
    this.server = server;
  }

  /// @param args a folder to work in
  public static void main(String[] args) throws Exception {
    Path folder = Path.of(args[0]).toAbsolutePath();
    UnixDomainSocketAddress address = UnixDomainSocketAddress.of(folder.resolve("s"));
    try (ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      server.bind(address);
      Settings settings =
          new Settings(
              address.getPath(),
              "token",
              folder.toString(),
              Optional.of(address.getPath()),
              0,
              4096);
      Thread.ofPlatform().daemon().start(() -> agent(settings));
      new Training(server).askForEverything();
    }
    System.exit(0);
  }

  private static void agent(Settings settings) {
    try {
      Kernel.hide();
      Agent.run(settings);
    } catch (Exception e) {
      throw new IllegalStateException(e);
    }
  }

  private void askForEverything() throws IOException {
    Message.StartProcess start =
        new Message.StartProcess(
            CALL,
            List.of("sh", "-e"),
            Map.of("PATH", "/usr/bin:/bin"),
            "/",
            Optional.of(
                new Message.Script(".sh", "cat; echo err >&2".getBytes(StandardCharsets.UTF_8))),
            true,
            60_000,
            1000,
            0,
            0);
    try (Connection call = request(start)) {
      expect(Message.Started.class, call.receive());
      expect(Message.StdinAck.class, ask(new Message.WriteStdin(CALL, 0, new byte[] {10}, true)));
      Message next = Objects.requireNonNull(call.receive());
      while (next instanceof Message.Output output) {
        call.send(new Message.Ack(output.channel(), output.offset() + output.bytes().length));
        next = Objects.requireNonNull(call.receive());
      }
      expect(Message.Ended.class, next);
      call.send(new Message.Release(CALL));
      expect(Message.Done.class, call.receive());
    }
    String second = CALL + "x";
    Message.StartProcess sleep =
        new Message.StartProcess(
            second,
            List.of("sleep", "60"),
            Map.of("PATH", "/usr/bin:/bin"),
            "/",
            Optional.empty(),
            false,
            60_000,
            10,
            0,
            0);
    expect(Message.Started.class, ask(sleep));
    try (Connection call = request(new Message.Attach(second, 0, 0))) {
      expect(Message.Started.class, call.receive());
      expect(Message.Done.class, ask(new Message.Signal(second, Kernel.SIGCONT)));
      expect(
          Message.Done.class, ask(new Message.Terminate(second, 10, Message.EndCause.CANCELLED)));
      expect(Message.Ended.class, call.receive());
    }
    expect(Message.Done.class, ask(new Message.Release(second)));
    expect(Message.Failure.class, ask(new Message.Attach(second, 0, 0)));
    files();
    expect(Message.Done.class, ask(new Message.Ping()));
    // Codec of what an agent only reads or only writes.
    LoopbackConnection.pair().left().send(new Message.Ping());
  }

  private void files() throws IOException {
    try (Connection upload = request(new Message.WriteFile("d/f", 0644))) {
      upload.send(new Message.Chunk(new byte[Limits.CHUNK_BYTES]));
      upload.send(new Message.ChunksEnd(Limits.CHUNK_BYTES));
      expect(Message.FileInfo.class, upload.receive());
    }
    try (Connection download = request(new Message.ReadFile("d/f", 0, Limits.CHUNK_BYTES))) {
      expect(Message.FileInfo.class, download.receive());
      expect(Message.Chunk.class, download.receive());
      expect(Message.ChunksEnd.class, download.receive());
    }
    expect(Message.FileInfo.class, ask(new Message.StatFile("d/f")));
    expect(Message.FileList.class, ask(new Message.ListFiles("d", 2)));
    expect(Message.Done.class, ask(new Message.MoveFile("d/f", "d/g")));
    expect(Message.Done.class, ask(new Message.RemoveFile("d", true)));
  }

  private Connection request(Message.Request request) throws IOException {
    Connection connection = FramedConnection.over(server.accept());
    expect(Message.Greeting.class, connection.receive());
    connection.send(request);
    return connection;
  }

  private Message ask(Message.Request request) throws IOException {
    try (Connection connection = request(request)) {
      return Objects.requireNonNull(connection.receive());
    }
  }

  private static void expect(Class<? extends Message> type, @Nullable Message message) {
    if (!type.isInstance(message)) {
      throw new IllegalStateException("not " + type.getSimpleName() + " but " + message);
    }
  }
}
