package dev.foredeck.core.gate;

import static dev.foredeck.core.kit.ControlPlane.OPERATION;
import static dev.foredeck.core.kit.World.problem;
import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.kit.FakeAgent;
import dev.foredeck.core.kit.World;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.protocol.Channel;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import java.io.IOException;
import java.io.InputStream;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// An agent is inside the blast radius: whatever it says, its call ends `lost`, its sandbox goes,
/// and nothing that it made up is recorded.
@Timeout(60)
final class LyingAgentTest {
  private static final Message.Started STARTED = new Message.Started(7);

  private final World world = new World();

  @AfterEach
  void close() {
    world.close();
  }

  record Lie(String name, String reason, List<Message> messages) {
    @Override
    public String toString() {
      return name;
    }
  }

  private static Message.Output output(Channel channel, long offset) {
    return new Message.Output(channel, offset, new byte[] {1, 2, 3});
  }

  private static Message.Ended ended(long stdout) {
    return new Message.Ended(Message.EndCause.SELF, 0, 0, stdout, 0, 0, 0, 0);
  }

  private static Lie lie(String name, String reason, Message... messages) {
    return new Lie(name, reason, List.of(messages));
  }

  static Stream<Lie> lies() {
    return Stream.of(
        lie("output from a wrong offset", "at offset 5", STARTED, output(Channel.STDOUT, 5)),
        lie(
            "the same output twice",
            "at offset 0 where 3",
            STARTED,
            output(Channel.STDOUT, 0),
            output(Channel.STDOUT, 0)),
        lie("output of a terminal", "terminal", STARTED, output(Channel.PTY, 0)),
        lie("output before the start", "not started", output(Channel.STDOUT, 0)),
        lie("an end before the start", "not started", ended(0)),
        lie("two starts", "second start", STARTED, STARTED),
        lie("an end with wrong totals", "output lengths", STARTED, ended(9)),
        lie("output after the end", "after the end", STARTED, ended(0), output(Channel.STDOUT, 0)),
        lie(
            "an unexpected message",
            "StdinAck|FileInfo",
            STARTED,
            new Message.FileInfo("x", Message.FileKind.FILE, 0, 0, 0)),
        lie(
            "a refusal after the start",
            "refusal",
            STARTED,
            new Message.Failure(Message.FailureCode.NOT_EXECUTABLE, "no")),
        lie(
            "a frame that is too long",
            "broke the protocol",
            STARTED,
            new Message.Failure(Message.FailureCode.IO, "broken frame")));
  }

  @ParameterizedTest
  @MethodSource("lies")
  void aLieEndsTheCallAsLostAndTheSandboxFails(Lie lie) {
    Sandbox sandbox = world.ready();
    FakeAgent agent = world.backend.agent(sandbox.id());
    agent.lie((request, connection) -> {
      if (!(request instanceof Message.StartProcess)) {
        return false;
      }
      for (Message message : lie.messages()) {
        connection.send(message);
      }
      boolean _ = connection.receive() == null;
      return true;
    });
    Call call = world.ended(world.start(sandbox.id(), "true").id());
    if (!lie.name().equals("output after the end")) {
      // An end that has arrived and is committed is one; what follows is not read any more.
      assertThat(call.status()).isEqualTo(CallStatus.LOST);
      assertThat(call.result().orElseThrow().reason()).containsPattern(lie.reason());
      Sandbox gone = world.gone(sandbox.id());
      assertThat(gone.phase()).isEqualTo(Phase.FAILED);
      assertThat(gone.reason()).isNotEmpty();
      assertThat(world.backend.states()).isEmpty();
    }
  }

  private static boolean saysNothing(Message.Request request, Connection connection)
      throws IOException {
    while (connection.receive() != null) {}
    return true;
  }

  private static ToolCall.ProcessStart brief() {
    return new ToolCall.ProcessStart(
        List.of("true"), "/workspace", Map.of(), Optional.of(Duration.ofMillis(50)), false);
  }

  @Test
  void anAgentThatNeverAnswersIsGivenUp() {
    world.limits = World.limits(Duration.ofMillis(50));
    Sandbox sandbox = world.ready();
    world.backend.agent(sandbox.id()).lie(LyingAgentTest::saysNothing);
    Call call = world.ended(world.start(sandbox.id(), brief()).id());
    assertThat(call.status()).isEqualTo(CallStatus.LOST);
    assertThat(call.result().orElseThrow().reason()).contains("in its time");
    assertThat(world.gone(sandbox.id()).phase()).isEqualTo(Phase.FAILED);
  }

  @Test
  void anAgentThatGreetsAndLeavesIsGivenUp() {
    Sandbox sandbox = world.ready();
    world.backend.agent(sandbox.id()).lie((_, _) -> true);
    Call call = world.ended(world.start(sandbox.id(), "true").id());
    assertThat(call.status()).isEqualTo(CallStatus.LOST);
    assertThat(call.result().orElseThrow().reason()).contains("does not answer");
    assertThat(world.gone(sandbox.id()).phase()).isEqualTo(Phase.FAILED);
  }

  @Test
  void filesAreAnsweredWithinTheirTimeAlsoByAnAgentThatSaysNothing() {
    Sandbox sandbox = world.ready();
    world.backend.agent(sandbox.id()).lie(LyingAgentTest::saysNothing);
    List<Runnable> questions =
        List.of(
            () -> world.plane().gate.statFile(OPERATION, sandbox.id(), "x"),
            () -> world.plane().gate.readFile(OPERATION, sandbox.id(), "x"),
            () ->
                world
                    .plane()
                    .gate
                    .writeFile(OPERATION, sandbox.id(), "x", -1, InputStream.nullInputStream()));
    for (Runnable question : questions) {
      assertThat(problem(question).code()).isEqualTo("agent-unanswered");
    }
    assertThat(world.store.liveCalls(sandbox.id())).isEmpty();
  }

  @Test
  void anAnswerThatDoesNotFitIsABrokenProtocol() {
    Sandbox sandbox = world.ready();
    world
        .backend
        .agent(sandbox.id())
        .lie((_, connection) -> {
          connection.send(new Message.StdinAck(1));
          return true;
        });
    assertThat(problem(() -> world.plane().gate.statFile(OPERATION, sandbox.id(), "x")).detail())
        .contains("broke its protocol");
    assertThat(
            problem(() -> world.plane().gate.removeFile(OPERATION, sandbox.id(), "x", false))
                .detail())
        .contains("broke its protocol");
  }

  @Test
  void anotherLifeOfTheAgentMeansThatTheProcessIsLost() {
    Sandbox sandbox = world.ready();
    Call call = world.running(sandbox.id(), "sleep");
    world.backend.agent(sandbox.id()).reboot("another");
    assertThat(world.ended(call.id()).status()).isEqualTo(CallStatus.LOST);
    assertThat(world.call(call.id()).result().orElseThrow().reason()).contains("not the one");
    assertThat(world.gone(sandbox.id()).phase()).isEqualTo(Phase.FAILED);
  }

  @Test
  void anAgentThatForgotAProcessLosesItAndSaysFromWhere() {
    Sandbox sandbox = world.ready();
    world.backend.program(
        "speaks",
        self -> {
          self.print("hello");
          self.waitForever();
          return 0;
        });
    Call call = world.running(sandbox.id(), "speaks");
    World.await(() -> world.call(call.id()).stdoutBytes() == 5);
    world.close();
    world.backend.agent(sandbox.id()).reboot(sandbox.bootId());
    world.restart();
    Call lost = world.ended(call.id());
    assertThat(lost.status()).isEqualTo(CallStatus.LOST);
    assertThat(lost.result().orElseThrow().reason()).contains("stdout offset 5");
    assertThat(world.backend.agent(sandbox.id()).runs()).containsEntry(call.id().value(), 1);
  }

  @Test
  void anAgentThatDiesLosesItsCallsAndTheSandboxFails() {
    Sandbox sandbox = world.ready();
    Call call = world.running(sandbox.id(), "sleep");
    world.backend.kill(sandbox.id());
    assertThat(world.ended(call.id()).status()).isEqualTo(CallStatus.LOST);
    Sandbox gone = world.gone(sandbox.id());
    assertThat(gone.phase()).isEqualTo(Phase.FAILED);
    assertThat(world.backend.states()).isEmpty();
    assertThat(world.story(sandbox.id()))
        .containsSubsequence("call.ended lost", "sandbox.phase failed");
  }

  @Test
  void aProcessTooBigForTheWireFailsAndTheSandboxStays() {
    Sandbox sandbox = world.ready();
    Call call =
        world.ended(
            world
                .start(
                    sandbox.id(),
                    new ToolCall.CodeRun(
                        "python",
                        "#".repeat(2 << 20),
                        "/workspace",
                        Map.of(),
                        Optional.empty(),
                        false))
                .id());
    assertThat(call.status()).isEqualTo(CallStatus.FAILED);
    assertThat(call.result().orElseThrow().reason()).contains("cannot be started");
    assertThat(world.ended(world.start(sandbox.id(), "true").id()).status())
        .isEqualTo(CallStatus.EXITED);
  }
}
