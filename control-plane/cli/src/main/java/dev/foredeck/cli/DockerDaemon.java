package dev.foredeck.cli;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.URI;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Predicate;

/// A Docker daemon on this host, asked what it has, over its own API and with nothing of the
/// driver's code.
///
/// @param socket where it listens
record DockerDaemon(Path socket) {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final Duration ANSWER = Duration.ofSeconds(10);
  private static final int MOST_BYTES = 16 * 1024 * 1024;

  /// The one that every program of Docker's would use.
  ///
  /// @throws CommandException where it is not on this host
  static DockerDaemon of(Surroundings around) {
    String text =
        around
            .variable("FOREDECK_DOCKER_HOST")
            .or(() -> around.variable("DOCKER_HOST"))
            .orElse("unix:///var/run/docker.sock");
    try {
      URI uri = URI.create(text);
      if ("unix".equals(uri.getScheme()) && uri.getPath() != null && !uri.getPath().isEmpty()) {
        return new DockerDaemon(Path.of(uri.getPath()));
      }
    } catch (IllegalArgumentException e) {
      // Refused below, whatever is wrong with it.
    }
    throw new CommandException(
        ExitCode.CANNOT,
        "the Docker daemon " + text + " is not on this host: it must be unix:///PATH");
  }

  /// One line for each container, running or not, and each volume whose description matches.
  ///
  /// @param ours is asked of the daemon's whole description: names, labels, mounts
  /// @throws IOException where the daemon does not answer
  List<String> things(Predicate<String> ours) throws IOException {
    List<String> found = new ArrayList<>();
    for (JsonNode container : get("/containers/json?all=true")) {
      if (ours.test(container.toString())) {
        found.add(
            "container " + container.path("Names").path(0).asText(container.path("Id").asText()));
      }
    }
    for (JsonNode volume : get("/volumes").path("Volumes")) {
      if (ours.test(volume.toString())) {
        found.add("volume " + volume.path("Name").asText());
      }
    }
    return found;
  }

  private JsonNode get(String path) throws IOException {
    try (SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX)) {
      Thread timer = Thread.ofVirtual().start(() -> closeLater(channel));
      try {
        channel.connect(UnixDomainSocketAddress.of(socket));
        // Version 1.0: an answer in one piece, whose end is the connection's.
        ByteBuffer request =
            ByteBuffer.wrap(
                ("GET " + path + " HTTP/1.0\r\nHost: docker\r\n\r\n")
                    .getBytes(StandardCharsets.US_ASCII));
        while (request.hasRemaining()) {
          channel.write(request);
        }
        return body(readAll(channel));
      } finally {
        timer.interrupt();
      }
    }
  }

  private static void closeLater(SocketChannel channel) {
    try {
      Thread.sleep(ANSWER);
      channel.close();
    } catch (InterruptedException | IOException e) {
      // It answered in time, or is closed already.
    }
  }

  private static String readAll(SocketChannel channel) throws IOException {
    ByteArrayOutputStream all = new ByteArrayOutputStream();
    ByteBuffer piece = ByteBuffer.allocate(64 * 1024);
    while (channel.read(piece) >= 0) {
      all.write(piece.array(), 0, piece.position());
      piece.clear();
      if (all.size() > MOST_BYTES) {
        throw new IOException("its answer is longer than " + MOST_BYTES + " bytes");
      }
    }
    return all.toString(StandardCharsets.UTF_8);
  }

  private static JsonNode body(String answer) throws IOException {
    int end = answer.indexOf("\r\n\r\n");
    String first = answer.lines().findFirst().orElse("nothing");
    if (end < 0 || !first.matches("HTTP/1\\.[01] 200( .*)?")) {
      throw new IOException("it answered " + first);
    }
    return JSON.readTree(answer.substring(end + 4));
  }
}
