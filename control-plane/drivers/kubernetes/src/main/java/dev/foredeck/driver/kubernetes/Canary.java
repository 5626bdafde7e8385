package dev.foredeck.driver.kubernetes;

import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.Driver.AgentConnection;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.Watchdog;
import dev.foredeck.policy.Boundary;
import dev.foredeck.policy.Isolation;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;

/// A sandbox of the probe's own, made as any other, in which the agent's bundle knocks at doors.
final class Canary implements AutoCloseable {
  private static final String JAVA = "/opt/foredeck/agent/bin/java";
  private static final int OUTPUT_BYTES = 64 * 1024;
  private static final Duration DESTROY = Duration.ofSeconds(10);
  private static final Resources SMALL = new Resources(500, 256L << 20, 16L << 20, 128);

  private final KubernetesDriver driver;
  private final LaunchSpec spec;

  /// @param until after this the cluster ends it by itself
  Canary(
      KubernetesDriver driver,
      Id id,
      Id tenant,
      String token,
      String template,
      Isolation isolation,
      Instant until) {
    Boundary boundary =
        new Boundary(
            List.of(),
            List.of(),
            OptionalLong.empty(),
            OptionalLong.empty(),
            OptionalInt.empty(),
            OptionalInt.empty(),
            Optional.empty(),
            isolation);
    this.driver = driver;
    this.spec = new LaunchSpec(id, tenant, template, SMALL, boundary, token, Map.of(), until);
  }

  LaunchSpec spec() {
    return spec;
  }

  void launch(Deadline deadline) throws DriverException {
    driver.launch(spec, left(deadline));
  }

  /// The lines that the agent's `Knock` prints.
  List<String> knock(List<String> targets, Deadline deadline) throws DriverException {
    List<String> argv = new ArrayList<>();
    argv.addAll(
        List.of(JAVA, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx24m", "-Xshare:auto"));
    argv.addAll(List.of("-m", "dev.foredeck.agent/dev.foredeck.agent.Knock"));
    argv.addAll(targets);
    AgentConnection agent = driver.connect(spec.sandbox(), spec.token(), left(deadline));
    try (Connection connection = agent.connection();
        Watchdog _ = Watchdog.after(left(deadline), connection::close)) {
      connection.send(
          new Message.StartProcess(
              // One call in a canary's life is one knock: the id need only be new each time.
              "call" + spec.sandbox().value().substring(3, 20) + argv.size(),
              argv,
              Map.of("PATH", "/usr/bin:/bin"),
              "/",
              Optional.empty(),
              false,
              left(deadline).toMillis() + 1,
              100,
              0,
              0));
      return collect(connection);
    } catch (IOException e) {
      throw new DriverException.Failed("the canary's agent broke off: " + e, e);
    }
  }

  private static List<String> collect(Connection connection)
      throws IOException, DriverException.Failed {
    ByteArrayOutputStream said = new ByteArrayOutputStream();
    ByteArrayOutputStream errors = new ByteArrayOutputStream();
    while (true) {
      switch (connection.receive()) {
        case Message.Started _ -> {}
        case Message.Output output -> {
          ByteArrayOutputStream kept =
              switch (output.channel()) {
                case STDOUT, PTY -> said;
                case STDERR -> errors;
              };
          if (kept.size() + output.bytes().length > OUTPUT_BYTES) {
            throw new IOException("it says too much");
          }
          kept.writeBytes(output.bytes());
          connection.send(
              new Message.Ack(output.channel(), output.offset() + output.bytes().length));
        }
        case Message.Ended ended when ended.exitCode() == 0 && ended.signal() == 0 -> {
          return said.toString(StandardCharsets.UTF_8).lines().toList();
        }
        case Message.Ended ended ->
            throw new DriverException.Failed(
                "the canary's program ended with "
                    + ended.exitCode()
                    + ": "
                    + PodView.text(errors.toString(StandardCharsets.UTF_8)));
        case Message.Failure failure ->
            throw new DriverException.Failed(
                "the canary's agent failed: " + PodView.text(failure.message()));
        case null -> throw new IOException("the agent closed the connection");
        case Message other -> throw new IOException("an unexpected " + other.getClass());
      }
    }
  }

  private static Duration left(Deadline deadline) {
    return Duration.ofNanos(Math.max(1, deadline.remainingNanos()));
  }

  /// @throws DriverException when the cluster does not let it go; its time to live then ends it
  @Override
  public void close() throws DriverException {
    driver.destroy(spec.sandbox(), DESTROY);
  }
}
