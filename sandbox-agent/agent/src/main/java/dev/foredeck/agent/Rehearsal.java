package dev.foredeck.agent;

import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.FramedConnection;
import dev.foredeck.protocol.Message;
import java.io.IOException;
import java.nio.channels.Channels;
import java.nio.channels.Pipe;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// A call that the agent asks of itself while nobody asks anything: the first call of a young JVM
/// takes several times what the third one takes, and in a sandbox that waits in a pool that time is
/// nobody's. It goes the way of every call, and starts a program of the agent's own runtime that
/// ends at once.
final class Rehearsal {
  private static final int ROUNDS = 4;
  private static final long TIMEOUT_MILLIS = 5_000;
  private static final Path PROGRAM =
      Path.of(System.getProperty("java.home"), "lib", "jspawnhelper");

  private final Requests requests;

  Rehearsal(Requests requests) {
    this.requests = requests;
  }

  /// Returns when it is over, whether it went well or not: a rehearsal that fails harms nobody.
  void run() {
    if (!Files.isExecutable(PROGRAM)) {
      return;
    }
    try {
      for (int round = 0; round < ROUNDS; round++) {
        once("rehearsal0000000" + round);
      }
    } catch (IOException e) {
      Log.warn("the rehearsal failed", e);
    }
  }

  private void once(String callId) throws IOException {
    Pipe there = Pipe.open();
    Pipe back = Pipe.open();
    try (Connection ours = connection(back, there);
        Connection theirs = connection(there, back)) {
      Thread _ = Thread.ofVirtual().start(() -> serve(theirs));
      ours.send(
          new Message.StartProcess(
              callId,
              List.of(PROGRAM.toString()),
              Map.of(),
              "/",
              Optional.empty(),
              false,
              TIMEOUT_MILLIS,
              0,
              0,
              0));
      for (Message next = ours.receive(); next != null; next = ours.receive()) {
        switch (next) {
          case Message.Output output ->
              ours.send(new Message.Ack(output.channel(), output.offset() + output.bytes().length));
          case Message.Ended _, Message.Failure _ -> {
            ours.send(new Message.Release(callId));
            Message _ = ours.receive();
            return;
          }
          default -> {}
        }
      }
    }
  }

  private void serve(Connection connection) {
    try (connection) {
      if (connection.receive() instanceof Message.Request request) {
        requests.serve(connection, request);
      }
    } catch (IOException _) {
      // The other end is done, and closed.
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    }
  }

  private static Connection connection(Pipe in, Pipe out) {
    return new FramedConnection(
        Channels.newInputStream(in.source()),
        Channels.newOutputStream(out.sink()),
        () -> {
          in.source().close();
          out.sink().close();
        });
  }
}
