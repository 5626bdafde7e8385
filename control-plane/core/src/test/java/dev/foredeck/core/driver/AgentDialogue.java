package dev.foredeck.core.driver;

import dev.foredeck.core.driver.Driver.AgentConnection;
import dev.foredeck.protocol.Channel;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Message.Ended;
import dev.foredeck.protocol.Message.Failure;
import dev.foredeck.protocol.Message.FailureCode;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// One call on a greeted connection, as the gate would make it, for tests: starts or attaches,
/// acknowledges what arrives, checks offsets, and collects everything until the end.
public final class AgentDialogue {
  static final String PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

  private AgentDialogue() {}

  /// @param stdout from the requested offset on
  /// @param ended null where the agent failed it
  /// @param failure null where it ran
  public record Outcome(
      byte[] stdout, byte[] stderr, @Nullable Ended ended, @Nullable FailureCode failure) {
    public String text() {
      return new String(stdout, StandardCharsets.UTF_8);
    }

    public String errors() {
      return new String(stderr, StandardCharsets.UTF_8);
    }

    public int exitCode() {
      if (ended == null) {
        throw new AssertionError("the call did not run: " + failure);
      }
      return ended.exitCode();
    }
  }

  public static Message.StartProcess start(String callId, List<String> argv) {
    return new Message.StartProcess(
        callId,
        argv,
        Map.of("PATH", PATH, "HOME", "/workspace"),
        "/workspace",
        Optional.empty(),
        false,
        60_000,
        1_000,
        0,
        0);
  }

  /// Runs it to its end.
  public static Outcome run(AgentConnection agent, String callId, String... argv)
      throws IOException {
    try (Connection connection = agent.connection()) {
      connection.send(start(callId, List.of(argv)));
      return collect(connection, 0, 0);
    }
  }

  /// Asks one thing that is answered with one message.
  public static @Nullable Message ask(AgentConnection agent, Message.Request request)
      throws IOException {
    try (Connection connection = agent.connection()) {
      connection.send(request);
      return connection.receive();
    }
  }

  /// Reads, acknowledging, until the call has ended or failed.
  public static Outcome collect(Connection connection, long stdoutOffset, long stderrOffset)
      throws IOException {
    ByteArrayOutputStream stdout = new ByteArrayOutputStream();
    ByteArrayOutputStream stderr = new ByteArrayOutputStream();
    while (true) {
      Message message = connection.receive();
      if (message instanceof Message.Output output) {
        boolean out = output.channel() == Channel.STDOUT;
        ByteArrayOutputStream kept = out ? stdout : stderr;
        long expected = (out ? stdoutOffset : stderrOffset) + kept.size();
        if (output.offset() != expected) {
          throw new AssertionError("offset " + output.offset() + " instead of " + expected);
        }
        kept.writeBytes(output.bytes());
        connection.send(new Message.Ack(output.channel(), expected + output.bytes().length));
      } else if (message instanceof Ended ended) {
        return new Outcome(stdout.toByteArray(), stderr.toByteArray(), ended, null);
      } else if (message instanceof Failure failure) {
        return new Outcome(stdout.toByteArray(), stderr.toByteArray(), null, failure.code());
      } else if (message == null) {
        throw new java.io.EOFException("the agent closed the connection");
      }
    }
  }
}
