package dev.foredeck.agent;

import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.FramedConnection;
import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.LoopbackConnection;
import dev.foredeck.protocol.Message;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.ConnectException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.security.KeyStore;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocket;
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
              new Settings.Reach.Dial(address.getPath(), "token", Optional.of(address.getPath())),
              folder.toString(),
              0,
              4096,
              0);
      Thread.ofPlatform().daemon().start(() -> agent(settings));
      new Training(server).askForEverything();
    }
    dialAndBeDialled(folder);
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

  /// What an agent does that is reached over a network: hears a control plane that dials it, and
  /// dials a gateway. The deployment's part is played with a certificate that the script made.
  private static void dialAndBeDialled(Path folder) throws Exception {
    char[] password = "training".toCharArray();
    KeyStore store = KeyStore.getInstance(folder.resolve("training.p12").toFile(), password);
    KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
    keys.init(store, password);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(keys.getKeyManagers(), null, null);
    Settings settings =
        Settings.from(
            Map.of(
                "FOREDECK_LISTEN",
                String.valueOf(freePort()),
                "FOREDECK_PIN",
                Listener.sha256(store.getCertificate("training").getEncoded()),
                "FOREDECK_TOKEN_SHA256",
                Listener.sha256("token".getBytes(StandardCharsets.UTF_8)),
                "FOREDECK_WORKSPACE",
                folder.toString()));
    Settings.Reach.Listen reach = (Settings.Reach.Listen) settings.reach();
    Requests requests =
        new Requests(
            new ProcessTable(new Children(settings.pids()), new Pump()),
            Subtree.at(settings.workspace()));
    Message.Greeting greeting =
        new Message.Greeting(Limits.PROTOCOL_MIN, Limits.PROTOCOL_MAX, "b", "", Agent.VERSION);
    GatewayDialler.Pinned gateway = new GatewayDialler.Pinned(reach.pin());
    Listener listener = new Listener(reach, new Greeter(greeting, requests), gateway);
    Thread.ofPlatform()
        .daemon()
        .start(() -> {
          try {
            listener.run();
          } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
          }
        });
    try (ServerSocket egress = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      for (int i = 0; i < 2; i++) {
        try (SSLSocket tls = deployment(context, dial(reach.port()));
            Connection connection =
                new FramedConnection(tls.getInputStream(), tls.getOutputStream(), tls)) {
          connection.send(
              new Message.Hello(
                  "token",
                  Optional.of(
                      new Message.Gateway(
                          CALL, "127.0.0.1", egress.getLocalPort(), "0".repeat(64)))));
          expect(Message.Greeting.class, connection.receive());
          connection.send(new Message.Ping());
          expect(Message.Done.class, connection.receive());
        }
      }
      Thread.ofPlatform()
          .daemon()
          .start(() -> {
            try (SSLSocket tls = deployment(context, egress.accept())) {
              long _ = tls.getInputStream().transferTo(tls.getOutputStream());
            } catch (IOException e) {
              throw new UncheckedIOException(e);
            }
          });
      try (Duplex way = gateway.dial()) {
        way.endOutput();
        byte[] _ = way.in().readAllBytes();
      }
    }
  }

  private static int freePort() throws IOException {
    try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      return socket.getLocalPort();
    }
  }

  /// The listener needs a moment to be there.
  private static Socket dial(int port) throws IOException, InterruptedException {
    for (int attempt = 0; ; attempt++) {
      try {
        return new Socket(InetAddress.getLoopbackAddress(), port);
      } catch (ConnectException e) {
        if (attempt == 500) {
          throw e;
        }
        Thread.sleep(10);
      }
    }
  }

  private static SSLSocket deployment(SSLContext context, Socket socket) throws IOException {
    SSLSocket tls =
        (SSLSocket) context.getSocketFactory().createSocket(socket, "training", 1, true);
    tls.setUseClientMode(false);
    return tls;
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
