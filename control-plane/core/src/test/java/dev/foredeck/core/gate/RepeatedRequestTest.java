package dev.foredeck.core.gate;

import static dev.foredeck.core.kit.ControlPlane.OPERATION;
import static dev.foredeck.core.kit.ControlPlane.keyed;
import static dev.foredeck.core.kit.World.problem;
import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Id;
import dev.foredeck.core.Operation;
import dev.foredeck.core.Problem;
import dev.foredeck.core.kit.World;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Message.FileInfo;
import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/// `Idempotency-Key` on what is not the start of a process.
@Timeout(60)
final class RepeatedRequestTest {
  private static final Operation KEYED = keyed("POST route", "k", "hash");
  private static final Operation OTHER_BODY = keyed("POST route", "k", "another");

  private final World world = new World();

  @AfterEach
  void close() {
    world.close();
  }

  private Gate gate() {
    return world.plane().gate;
  }

  private <T extends Message.Request> Stream<T> asked(Sandbox sandbox, Class<T> kind) {
    return world.backend.agent(sandbox.id()).requests().stream()
        .filter(kind::isInstance)
        .map(kind::cast);
  }

  private FileInfo write(Operation operation, Sandbox sandbox, String path, String text) {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    return gate()
        .writeFile(operation, sandbox.id(), path, bytes.length, new ByteArrayInputStream(bytes));
  }

  private static void assertMismatch(Runnable repeat) {
    assertThat(problem(repeat).code()).isEqualTo("idempotency-mismatch");
  }

  @Test
  void aFileIsMovedOnceHoweverManyAsk() throws Exception {
    Sandbox sandbox = world.ready();
    FileInfo _ = write(OPERATION, sandbox, "a", "text");
    List<Callable<Boolean>> requests = new ArrayList<>();
    for (int i = 0; i < 8; i++) {
      requests.add(() -> {
        gate().moveFile(KEYED, sandbox.id(), "a", "b");
        return true;
      });
    }
    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      for (Future<Boolean> answer : threads.invokeAll(requests)) {
        assertThat(answer.get()).isTrue();
      }
    }
    assertThat(asked(sandbox, Message.MoveFile.class)).hasSize(1);
    assertMismatch(() -> gate().moveFile(OTHER_BODY, sandbox.id(), "a", "c"));
  }

  @Test
  void aRepeatedWriteSaysWhatTheFirstWroteAndWritesNothing() {
    Sandbox sandbox = world.ready();
    FileInfo first = write(KEYED, sandbox, "a", "text");
    FileInfo _ = write(OPERATION, sandbox, "a", "newer text");
    FileInfo again = write(KEYED, sandbox, "a", "text");
    assertThat(again.path()).isEqualTo(first.path());
    assertThat(again.sizeBytes()).isEqualTo(first.sizeBytes());
    assertThat(world.backend.agent(sandbox.id()).file("a"))
        .asString(StandardCharsets.UTF_8)
        .isEqualTo("newer text");
    assertMismatch(() -> write(OTHER_BODY, sandbox, "a", "x"));
  }

  @Test
  void aRepeatOfWhatFailedFailsWithItsReasonAndDoesNotTryAgain() {
    Sandbox sandbox = world.ready();
    assertThat(problem(() -> gate().removeFile(KEYED, sandbox.id(), "a", false)))
        .isInstanceOf(Problem.NotFound.class);
    FileInfo _ = write(OPERATION, sandbox, "a", "text");
    Problem repeated = problem(() -> gate().removeFile(KEYED, sandbox.id(), "a", false));
    assertThat(repeated.code()).isEqualTo("call-failed");
    assertThat(repeated.detail()).contains("there is no a");
    assertThat(world.backend.agent(sandbox.id()).file("a")).isNotNull();
  }

  @Test
  void aRepeatedReadReadsAgain() {
    Sandbox sandbox = world.ready();
    FileInfo _ = write(OPERATION, sandbox, "a", "text");
    assertThat(gate().statFile(KEYED, sandbox.id(), "a").sizeBytes()).isEqualTo(4);
    FileInfo _ = write(OPERATION, sandbox, "a", "newer text");
    assertThat(gate().statFile(KEYED, sandbox.id(), "a").sizeBytes()).isEqualTo(10);
    assertMismatch(() -> gate().statFile(OTHER_BODY, sandbox.id(), "a"));
    assertMismatch(() -> gate().listFiles(OTHER_BODY, sandbox.id(), "", 1));
    assertMismatch(() -> gate().readFile(OTHER_BODY, sandbox.id(), "a"));
  }

  @Test
  void aSignalIsSentOnceAlsoWhereTheProcessHasEndedSince() {
    Sandbox sandbox = world.ready();
    Id call = world.running(sandbox.id(), "sleep").id();
    gate().signal(KEYED, call, "TERM");
    world.ended(call);
    gate().signal(KEYED, call, "TERM");
    assertThat(asked(sandbox, Message.Signal.class)).hasSize(1);
    assertMismatch(() -> gate().signal(OTHER_BODY, call, "KILL"));
  }

  @Test
  void cancellingIsHeldToItsBody() {
    Sandbox sandbox = world.ready();
    Id call = world.running(sandbox.id(), "sleep").id();
    Call _ = gate().cancel(KEYED, call);
    assertThat(world.ended(call).status()).isEqualTo(CallStatus.CANCELLED);
    assertThat(gate().cancel(KEYED, call).status()).isEqualTo(CallStatus.CANCELLED);
    assertMismatch(() -> gate().cancel(OTHER_BODY, call));
  }

  private Id cat(Sandbox sandbox) {
    return world
        .running(
            sandbox.id(),
            new ToolCall.ProcessStart(
                List.of("cat"), "/workspace", Map.of(), Optional.empty(), true))
        .id();
  }

  private long stdin(Operation operation, Id call, String text, boolean end) {
    return gate()
        .stdin(operation, call, Optional.empty(), text.getBytes(StandardCharsets.UTF_8), end);
  }

  @Test
  void stdinIsAppendedOnceAndTheRepeatIsAnsweredAlike() {
    Sandbox sandbox = world.ready();
    Id call = cat(sandbox);
    assertThat(stdin(OPERATION, call, "ab", false)).isEqualTo(2);
    assertThat(stdin(KEYED, call, "cd", false)).isEqualTo(4);
    assertThat(stdin(OPERATION, call, "ef", false)).isEqualTo(6);
    assertThat(stdin(KEYED, call, "cd", false)).isEqualTo(4);
    assertMismatch(() -> stdin(OTHER_BODY, call, "xx", false));
    assertThat(stdin(OPERATION, call, "", true)).isEqualTo(6);
    world.ended(call);
    assertThat(stdin(KEYED, call, "cd", false)).isEqualTo(4);
    assertThat(world.store.output(call, dev.foredeck.protocol.Channel.STDOUT, 0, 100))
        .asString(StandardCharsets.UTF_8)
        .isEqualTo("abcdef");
  }

  @Test
  void stdinWhoseAnswerGotLostIsWrittenWhereItWasBound() {
    Sandbox sandbox = world.ready();
    Id call = cat(sandbox);
    // The agent takes the bytes and does not say so.
    world
        .backend
        .agent(sandbox.id())
        .lie((request, connection) -> {
          if (request instanceof Message.WriteStdin write && write.bytes().length > 0) {
            var _ =
                world
                    .backend
                    .agent(sandbox.id())
                    .process(call.value())
                    .stdin(write.offset(), write.bytes(), write.end());
            connection.close();
            return true;
          }
          return false;
        });
    assertThat(problem(() -> stdin(KEYED, call, "once", false)).code())
        .isEqualTo("agent-unanswered");
    world.backend.agent(sandbox.id()).lie((_, _) -> false);
    assertThat(stdin(KEYED, call, "once", false)).isEqualTo(4);
    assertThat(stdin(OPERATION, call, "", true)).isEqualTo(4);
    world.ended(call);
    assertThat(world.store.output(call, dev.foredeck.protocol.Channel.STDOUT, 0, 100))
        .asString(StandardCharsets.UTF_8)
        .isEqualTo("once");
  }

  // The end of a call that is done at once.

  private void loseDatabaseAt(Sandbox sandbox, Runnable then) {
    world
        .backend
        .agent(sandbox.id())
        .lie((request, _) -> {
          if (request instanceof Message.StatFile) {
            world.store.unavailable(true);
            then.run();
          }
          return false;
        });
  }

  @Test
  void anEndIsRecordedWhenTheDatabaseIsBackSoon() {
    Sandbox sandbox = world.ready();
    FileInfo _ = write(OPERATION, sandbox, "a", "text");
    loseDatabaseAt(
        sandbox,
        () ->
            Thread.ofVirtual()
                .start(() -> {
                  World.pause(java.time.Duration.ofMillis(50));
                  world.store.unavailable(false);
                }));
    assertThat(gate().statFile(OPERATION, sandbox.id(), "a").sizeBytes()).isEqualTo(4);
    assertThat(world.store.liveCalls(sandbox.id())).isEmpty();
    assertThat(world.story(sandbox.id())).endsWith("call.ended exited");
  }

  @Test
  void aCallWhoseEndCouldNotBeRecordedIsLostAfterItsDeadline() {
    Sandbox sandbox = world.ready();
    FileInfo _ = write(OPERATION, sandbox, "a", "text");
    loseDatabaseAt(sandbox, () -> {});
    try {
      FileInfo _ = gate().statFile(OPERATION, sandbox.id(), "a");
      throw new AssertionError("it was answered without being recorded");
    } catch (dev.foredeck.core.store.Store.StoreUnavailableException _) {
      // What the client is told, too.
    }
    world.store.unavailable(false);
    assertThat(world.store.liveCalls(sandbox.id())).hasSize(1);
    world.clock.advance(dev.foredeck.core.Limits.DEFAULT.defaultTimeout().plusSeconds(1));
    World.await(() -> world.store.liveCalls(sandbox.id()).isEmpty());
    assertThat(world.story(sandbox.id())).endsWith("call.ended lost");
  }

  @Test
  void aFileThatIsStillReadOutlivesTheDeadline() throws Exception {
    Sandbox sandbox = world.ready();
    FileInfo _ = write(OPERATION, sandbox, "a", "text");
    Calls.Download download = gate().readFile(OPERATION, sandbox.id(), "a");
    world.clock.advance(dev.foredeck.core.Limits.DEFAULT.defaultTimeout().plusSeconds(1));
    // Several turns of the loop.
    World.pause(java.time.Duration.ofMillis(200));
    assertThat(world.call(download.call()).status()).isEqualTo(CallStatus.PENDING);
    assertThat(download.content().readAllBytes()).hasSize(4);
    assertThat(world.call(download.call()).status()).isEqualTo(CallStatus.EXITED);
  }
}
