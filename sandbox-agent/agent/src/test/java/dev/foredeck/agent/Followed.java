package dev.foredeck.agent;

import dev.foredeck.protocol.Channel;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;

/// What a reader got of one process: collects output, checks offsets, acknowledges.
final class Followed {
  private final ByteArrayOutputStream stdout = new ByteArrayOutputStream();
  private final ByteArrayOutputStream stderr = new ByteArrayOutputStream();
  private Message.Ended ended = new Message.Ended(Message.EndCause.SELF, 0, 0, 0, 0, 0, 0, 0);
  private long pid;

  /// Reads a call from its start to its end.
  static Followed toTheEnd(Connection connection) throws IOException {
    Followed followed = new Followed();
    followed.follow(connection, Long.MAX_VALUE);
    return followed;
  }

  /// Reads on until the end or until `max` more bytes have come.
  ///
  /// @return whether the end was reached
  boolean follow(Connection connection, long max) throws IOException {
    long got = 0;
    while (got < max) {
      Message message = connection.receive();
      switch (message) {
        case null -> throw new AssertionError("the agent closed before the end");
        case Message.Started m -> pid = m.pid();
        case Message.Output m -> {
          ByteArrayOutputStream to = m.channel() == Channel.STDOUT ? stdout : stderr;
          if (m.offset() != to.size()) {
            throw new AssertionError(m.channel() + " at " + m.offset() + ", not " + to.size());
          }
          to.writeBytes(m.bytes());
          got += m.bytes().length;
          connection.send(new Message.Ack(m.channel(), to.size()));
        }
        case Message.Ended m -> {
          ended = m;
          if (m.stdoutBytes() != stdout.size() || m.stderrBytes() != stderr.size()) {
            throw new AssertionError("ended before all output was sent: " + m);
          }
          return true;
        }
        default -> throw new AssertionError("unexpected " + message);
      }
    }
    return false;
  }

  byte[] stdout() {
    return stdout.toByteArray();
  }

  byte[] stderr() {
    return stderr.toByteArray();
  }

  String text() {
    return stdout.toString(StandardCharsets.UTF_8);
  }

  String errorText() {
    return stderr.toString(StandardCharsets.UTF_8);
  }

  Message.Ended ended() {
    return ended;
  }

  long pid() {
    return pid;
  }
}
