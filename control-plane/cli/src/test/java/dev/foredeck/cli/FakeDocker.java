package dev.foredeck.cli;

import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;

/// Answers a Docker daemon's questions with what the test says, and others with an error.
final class FakeDocker implements AutoCloseable {
  private final Path socket;
  private final ServerSocketChannel server;
  private final Map<String, String> answers;

  /// @param answers bodies by path
  FakeDocker(Path socket, Map<String, String> answers) throws IOException {
    this.socket = socket;
    this.answers = Map.copyOf(answers);
    this.server = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    server.bind(UnixDomainSocketAddress.of(socket));
    Thread.ofVirtual().start(this::serve);
  }

  DockerDaemon daemon() {
    return new DockerDaemon(socket);
  }

  private void serve() {
    try {
      while (true) {
        try (SocketChannel client = server.accept()) {
          ByteBuffer request = ByteBuffer.allocate(4096);
          client.read(request);
          String text = new String(request.array(), 0, request.position(), StandardCharsets.UTF_8);
          Optional<String> answer = Optional.ofNullable(answers.get(text.split(" ", 3)[1]));
          client.write(
              ByteBuffer.wrap(
                  answer
                      .map(body -> "HTTP/1.0 200 OK\r\n\r\n" + body)
                      .orElse("HTTP/1.0 500 Oops\r\n\r\n")
                      .getBytes(StandardCharsets.UTF_8)));
        }
      }
    } catch (IOException _) {
      // Closed: the test is over.
    }
  }

  @Override
  public void close() throws IOException {
    server.close();
    Files.deleteIfExists(socket);
  }
}
