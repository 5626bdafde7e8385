package dev.foredeck.core.gate;

import static dev.foredeck.core.kit.ControlPlane.OPERATION;
import static dev.foredeck.core.kit.ControlPlane.process;
import static dev.foredeck.core.kit.World.problem;
import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Id;
import dev.foredeck.core.Operation;
import dev.foredeck.core.Principal;
import dev.foredeck.core.Problem;
import dev.foredeck.core.Role;
import dev.foredeck.core.kit.ControlPlane;
import dev.foredeck.core.kit.FakeProcess;
import dev.foredeck.core.kit.TestLimits;
import dev.foredeck.core.kit.World;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.sandbox.Sandboxes;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
import dev.foredeck.core.store.Event;
import dev.foredeck.core.store.InMemoryStore;
import dev.foredeck.protocol.Channel;
import dev.foredeck.protocol.Message;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.SequenceInputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
final class GateTest {
  private static final Operation STRANGER =
      new Operation(
          new Principal(
              new Id("ten9999999999999999"),
              new Id("key9999999999999999"),
              "mallory",
              Role.OPERATOR),
          "trace",
          Optional.empty());

  private final World world = new World();

  @AfterEach
  void close() {
    world.close();
  }

  private Gate gate() {
    return world.plane().gate;
  }

  private static byte[] utf8(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  private String stdout(Id call) {
    return new String(
        gate().output(OPERATION, call, Channel.STDOUT, 0, 1 << 20).bytes(), StandardCharsets.UTF_8);
  }

  @Test
  void runsAProcessAndRecordsAllOfIt() {
    Sandbox sandbox = world.ready();
    Call call = world.ended(world.start(sandbox.id(), "echo", "hello").id());
    assertThat(call.status()).isEqualTo(CallStatus.EXITED);
    assertThat(call.result().orElseThrow().exitCode()).isZero();
    assertThat(stdout(call.id())).isEqualTo("hello\n");
    assertThat(world.story(sandbox.id()))
        .containsSubsequence(
            "sandbox.phase requested",
            "sandbox.phase starting",
            "sandbox.phase ready",
            "call.requested",
            "call.decided allow",
            "call.started",
            "output",
            "call.ended exited");
    Calls.OutputPage page = gate().output(OPERATION, call.id(), Channel.STDOUT, 2, 2);
    assertThat(page.bytes()).asString().isEqualTo("ll");
    assertThat(page.recorded()).isEqualTo(6);
    assertThat(page.total()).isEqualTo(6);
    assertThat(page.ended()).isTrue();
  }

  @Test
  void aNonZeroExitIsAnExit() {
    Call call = world.ended(world.start(world.ready().id(), "false").id());
    assertThat(call.status()).isEqualTo(CallStatus.EXITED);
    assertThat(call.result().orElseThrow().exitCode()).isEqualTo(1);
  }

  @Test
  void aProgramThatIsNotThereFailsItsCallAndNotTheSandbox() {
    Sandbox sandbox = world.ready();
    Call call = world.ended(world.start(sandbox.id(), "nonesuch").id());
    assertThat(call.status()).isEqualTo(CallStatus.FAILED);
    assertThat(call.result().orElseThrow().reason()).contains("not found");
    assertThat(world.ended(world.start(sandbox.id(), "true").id()).status())
        .isEqualTo(CallStatus.EXITED);
  }

  @Test
  void aDeniedCallIsAnsweredAndRecordedAndNeverReachesTheAgent() {
    Sandbox sandbox = world.ready();
    Problem problem = problem(() -> world.start(sandbox.id(), "rm", "-rf", "/"));
    assertThat(problem).isInstanceOf(Problem.Denied.class);
    Problem.Denied denied = (Problem.Denied) problem;
    assertThat(denied.rules()).containsExactly("no-rm");
    assertThat(denied.detail()).isEqualTo("nothing is removed here");
    assertThat(denied.policy()).isEqualTo(sandbox.policy());
    assertThat(world.call(denied.call()).status()).isEqualTo(CallStatus.DENIED);
    assertThat(world.story(sandbox.id()))
        .endsWith("call.requested", "call.decided deny", "call.ended denied");
    assertThat(world.backend.agent(sandbox.id()).runs()).isEmpty();
  }

  @Test
  void shadowModeRecordsTheDenialAndRunsTheCall() {
    world.policies =
        Map.of(
            "default",
            World.POLICY.replace(
                "metadata: {name: default}", "metadata: {name: default}\nmode: shadow"));
    world.backend.program("rm", _ -> 0);
    Sandbox sandbox = world.ready();
    Call call = world.ended(world.start(sandbox.id(), "rm").id());
    assertThat(call.status()).isEqualTo(CallStatus.EXITED);
    Event decided = world.events(sandbox.id(), "call.decided").getFirst();
    assertThat(decided.data().path("effect").asText()).isEqualTo("deny");
    assertThat(decided.data().path("mode").asText()).isEqualTo("shadow");
  }

  @Test
  void aStrangerFindsNothing() throws IOException {
    Sandbox sandbox = world.ready();
    Call call = world.ended(world.start(sandbox.id(), "true").id());
    List<Runnable> questions =
        List.of(
            () -> gate().start(STRANGER, sandbox.id(), process("true"), false, List.of()),
            () -> gate().get(STRANGER, call.id()),
            () -> gate().awaitEnd(STRANGER, call, Duration.ZERO),
            () -> gate().output(STRANGER, call.id(), Channel.STDOUT, 0, 1),
            () -> gate().outputs(STRANGER, call.id()),
            () -> gate().outputFile(STRANGER, call.id(), "x"),
            () -> gate().stdin(STRANGER, call.id(), Optional.empty(), new byte[0], false),
            () -> gate().signal(STRANGER, call.id(), "TERM"),
            () -> gate().cancel(STRANGER, call.id()),
            () -> gate().readFile(STRANGER, sandbox.id(), "x"),
            () -> gate().writeFile(STRANGER, sandbox.id(), "x", -1, InputStream.nullInputStream()),
            () -> gate().listFiles(STRANGER, sandbox.id(), "", 1),
            () -> gate().statFile(STRANGER, sandbox.id(), "x"),
            () -> gate().removeFile(STRANGER, sandbox.id(), "x", false),
            () -> gate().moveFile(STRANGER, sandbox.id(), "x", "y"));
    for (Runnable question : questions) {
      assertThat(problem(question)).isInstanceOf(Problem.NotFound.class);
    }
  }

  @Test
  void environmentVariablesOfTheCallAreNotInTheLog() {
    Sandbox sandbox = world.ready();
    world.ended(
        world
            .start(
                sandbox.id(),
                new ToolCall.ProcessStart(
                    List.of("true"),
                    "/workspace",
                    Map.of("TOKEN", "hunter2"),
                    Optional.empty(),
                    false))
            .id());
    assertThat(world.events(sandbox.id()).toString()).contains("TOKEN").doesNotContain("hunter2");
  }

  // Idempotency.

  @Test
  void theSameKeyAndBodyGiveTheSameCallAndItRunsOnce() throws Exception {
    Sandbox sandbox = world.ready();
    Operation keyed = ControlPlane.keyed("POST calls", "k", "hash");
    List<Callable<Id>> requests = new ArrayList<>();
    for (int i = 0; i < 16; i++) {
      requests.add(() -> gate().start(keyed, sandbox.id(), process("true"), false, List.of()).id());
    }
    List<Id> calls = new ArrayList<>();
    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      for (Future<Id> answer : threads.invokeAll(requests)) {
        calls.add(answer.get());
      }
    }
    assertThat(calls).containsOnly(calls.getFirst());
    world.ended(calls.getFirst());
    assertThat(world.backend.agent(sandbox.id()).runs())
        .containsExactlyEntriesOf(Map.of(calls.getFirst().value(), 1));
    assertThat(world.events(sandbox.id(), "call.requested")).hasSize(1);
  }

  @Test
  void aRepeatIsAnsweredAlsoWhereTheFirstTookTheLastPlace() throws Exception {
    world.limits = withCallsPerSandbox(1);
    Sandbox sandbox = world.ready();
    Operation keyed = ControlPlane.keyed("POST calls", "k", "hash");
    List<Callable<Id>> requests = new ArrayList<>();
    for (int i = 0; i < 16; i++) {
      requests.add(
          () -> gate().start(keyed, sandbox.id(), process("sleep"), false, List.of()).id());
    }
    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<Id> calls = new ArrayList<>();
      for (Future<Id> answer : threads.invokeAll(requests)) {
        calls.add(answer.get());
      }
      assertThat(calls).containsOnly(calls.getFirst());
    }
  }

  @Test
  void theSameKeyWithAnotherBodyIsAConflict() {
    Sandbox sandbox = world.ready();
    gate()
        .start(
            ControlPlane.keyed("POST calls", "k", "one"),
            sandbox.id(),
            process("true"),
            false,
            List.of());
    Problem problem =
        problem(() ->
            gate()
                .start(
                    ControlPlane.keyed("POST calls", "k", "two"),
                    sandbox.id(),
                    process("true"),
                    false,
                    List.of()));
    assertThat(problem).isInstanceOf(Problem.Conflict.class);
    assertThat(problem.code()).isEqualTo("idempotency-mismatch");
  }

  @Test
  void aDeniedCallDoesNotTakeItsKey() {
    Sandbox sandbox = world.ready();
    Operation keyed = ControlPlane.keyed("POST calls", "k", "hash");
    for (int i = 0; i < 2; i++) {
      assertThat(problem(() -> gate().start(keyed, sandbox.id(), process("rm"), false, List.of())))
          .isInstanceOf(Problem.Denied.class);
    }
    assertThat(world.events(sandbox.id(), "call.requested")).hasSize(2);
  }

  @Test
  void aRepeatAfterTheSandboxHasGoneStillSaysWhatTheFirstMade() {
    Sandbox sandbox = world.ready();
    Operation keyed = ControlPlane.keyed("POST calls", "k", "hash");
    Id first = gate().start(keyed, sandbox.id(), process("true"), false, List.of()).id();
    world.ended(first);
    world.plane().sandboxes.destroy(OPERATION, sandbox.id());
    world.gone(sandbox.id());
    assertThat(gate().start(keyed, sandbox.id(), process("true"), false, List.of()).id())
        .isEqualTo(first);
  }

  private static dev.foredeck.core.Limits withCallsPerSandbox(int calls) {
    return limits(calls, dev.foredeck.core.Limits.DEFAULT.callOutputBytes());
  }

  private static dev.foredeck.core.Limits limits(int calls, long callOutputBytes) {
    return TestLimits.with(
        Map.of(
            "uploadBytes",
            1L << 20,
            "inlineOutputBytes",
            1024,
            "outputFileBytes",
            4096,
            "callOutputBytes",
            callOutputBytes,
            "sandboxesPerTenant",
            2,
            "callsPerSandbox",
            calls,
            "grace",
            Duration.ofMillis(100)));
  }

  @Test
  void liveCallsAreLimitedAndAnEndFreesAPlace() {
    world.limits = withCallsPerSandbox(2);
    Sandbox sandbox = world.ready();
    Call one = world.running(sandbox.id(), "sleep");
    world.running(sandbox.id(), "sleep");
    Problem problem = problem(() -> world.start(sandbox.id(), "sleep"));
    assertThat(problem).isInstanceOf(Problem.Capacity.class);
    assertThat(problem.code()).isEqualTo("call-quota");
    gate().cancel(OPERATION, one.id());
    world.ended(one.id());
    world.running(sandbox.id(), "sleep");
  }

  // Output.

  @Test
  void recordsRandomBytesOfBothChannels() {
    byte[] out = new byte[700_000];
    byte[] err = new byte[300_000];
    new Random(1).nextBytes(out);
    new Random(2).nextBytes(err);
    world.backend.spoolBytes(10_000);
    world.backend.program(
        "noise",
        self -> {
          int at = 0;
          while (at < out.length) {
            int end = Math.min(out.length, at + 7_000);
            self.write(Channel.STDOUT, Arrays.copyOfRange(out, at, end));
            if (at < err.length) {
              self.write(Channel.STDERR, Arrays.copyOfRange(err, at, Math.min(err.length, end)));
            }
            at = end;
          }
          return 3;
        });
    Call call = world.ended(world.start(world.ready().id(), "noise").id());
    assertThat(gate().output(OPERATION, call.id(), Channel.STDOUT, 0, 1 << 24).bytes())
        .isEqualTo(out);
    assertThat(gate().output(OPERATION, call.id(), Channel.STDERR, 0, 1 << 24).bytes())
        .isEqualTo(err);
    assertThat(call.result().orElseThrow().outputBytes()).isEqualTo(1_000_000);
  }

  @Test
  void beyondTheLimitOutputIsSkippedAndSaidOncePerChannel() {
    world.limits = limits(8, 1_000);
    world.backend.spoolBytes(300);
    world.backend.program(
        "noise",
        self -> {
          for (int i = 0; i < 50; i++) {
            self.write(Channel.STDOUT, new byte[100]);
            self.write(Channel.STDERR, new byte[70]);
          }
          return 0;
        });
    Sandbox sandbox = world.ready();
    Call call = world.ended(world.start(sandbox.id(), "noise").id());
    assertThat(call.status()).isEqualTo(CallStatus.EXITED);
    assertThat(call.truncated()).isTrue();
    assertThat(call.stdoutBytes()).isEqualTo(5_000);
    assertThat(call.stderrBytes()).isEqualTo(3_500);
    Calls.OutputPage page = gate().output(OPERATION, call.id(), Channel.STDOUT, 0, 1 << 20);
    assertThat(page.bytes()).hasSize(1_000);
    assertThat(page.recorded()).isEqualTo(1_000);
    assertThat(page.total()).isEqualTo(5_000);
    assertThat(world.events(sandbox.id(), "output.truncated"))
        .extracting(
            event -> event.data().path("channel").asText(),
            event -> event.data().path("offset").asLong())
        .containsExactlyInAnyOrder(
            org.assertj.core.groups.Tuple.tuple("stdout", 1_000L),
            org.assertj.core.groups.Tuple.tuple("stderr", 1_000L));
  }

  @Test
  void copiesOutputsOutAndNamesWhatIsMissing() {
    world.limits = limits(8, 1 << 20);
    world.backend.program(
        "make",
        self -> {
          self.agent().write("small.txt", utf8("small"));
          self.agent().write("middle.bin", new byte[2_000]);
          self.agent().write("huge.bin", new byte[5_000]);
          return 0;
        });
    Sandbox sandbox = world.ready();
    Call call =
        gate()
            .start(
                OPERATION,
                sandbox.id(),
                process("make"),
                false,
                List.of("small.txt", "middle.bin", "huge.bin", "absent"));
    assertThat(gate().outputs(OPERATION, call.id()))
        .hasSize(4)
        .allMatch(output -> output.missing().isPresent() || output.sizeBytes() > 0);
    world.ended(call.id());
    List<Calls.Output> outputs = gate().outputs(OPERATION, call.id());
    assertThat(outputs)
        .extracting(Calls.Output::path)
        .containsExactly("small.txt", "middle.bin", "huge.bin", "absent");
    assertThat(outputs).extracting(Calls.Output::sizeBytes).containsExactly(5L, 2_000L, 0L, 0L);
    assertThat(outputs.get(2).missing()).isPresent();
    assertThat(outputs.get(3).missing()).isPresent();
    assertThat(gate().outputFile(OPERATION, call.id(), "small.txt")).asString().isEqualTo("small");
    assertThat(problem(() -> gate().outputFile(OPERATION, call.id(), "absent")).code())
        .isEqualTo("output-not-found");
    List<Event> events = world.events(sandbox.id(), "call.output");
    assertThat(events).hasSize(4);
    assertThat(events.get(0).data().path("base64").asText()).isEqualTo("c21hbGw=");
    assertThat(events.get(1).data().has("base64")).isFalse();
    assertThat(events.get(2).data().path("missing").asText()).contains("5000 bytes");
    assertThat(events.get(3).data().path("missing").asText()).contains("there is no absent");
    assertThat(world.story(sandbox.id())).endsWith("call.ended exited");
  }

  // Ends.

  @Test
  void aTimeoutEndsTheProcess() {
    Sandbox sandbox = world.ready();
    Call call =
        world.ended(
            world
                .start(
                    sandbox.id(),
                    new ToolCall.ProcessStart(
                        List.of("sleep"),
                        "/workspace",
                        Map.of(),
                        Optional.of(Duration.ofMillis(30)),
                        false))
                .id());
    assertThat(call.status()).isEqualTo(CallStatus.TIMEOUT);
    assertThat(call.result().orElseThrow().signal()).isEqualTo(15);
  }

  @Test
  void cancelEndsARunningProcessEvenOneThatIgnoresTerm() {
    world.limits = limits(8, 1 << 20);
    CountDownLatch deaf = new CountDownLatch(1);
    world.backend.program(
        "stubborn",
        self -> {
          self.ignoreTerm();
          deaf.countDown();
          self.waitForever();
          return 0;
        });
    Sandbox sandbox = world.ready();
    Call call = world.running(sandbox.id(), "stubborn");
    // It runs as soon as the agent says so, and ignores TERM a moment later.
    World.awaitLatch(deaf);
    gate().cancel(OPERATION, call.id());
    gate().cancel(OPERATION, call.id());
    Call ended = world.ended(call.id());
    assertThat(ended.status()).isEqualTo(CallStatus.CANCELLED);
    assertThat(ended.result().orElseThrow().signal()).isEqualTo(9);
    assertThat(gate().cancel(OPERATION, call.id()).status()).isEqualTo(CallStatus.CANCELLED);
  }

  @Test
  void cancelOfAPendingCallEndsItAndTheSandboxThatWasMadeForIt() throws Exception {
    CountDownLatch launching = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    world.driver.fault(point -> {
      if (point.equals("launch.before")) {
        launching.countDown();
        World.awaitLatch(go);
      }
    });
    Sandboxes.Provisioned made =
        world
            .plane()
            .sandboxes
            .create(OPERATION, ControlPlane.request(Optional.of(process("true"))));
    launching.await();
    Id call = made.call().orElseThrow().id();
    assertThat(gate().cancel(OPERATION, call).status()).isEqualTo(CallStatus.CANCELLED);
    go.countDown();
    assertThat(world.gone(made.sandbox().id()).phase()).isEqualTo(Phase.GONE);
    assertThat(world.backend.states()).isEmpty();
    assertThat(world.backend.everyAgent()).allMatch(agent -> agent.runs().isEmpty());
  }

  @Test
  void cancelThatRacesWithTheStartEndsTheProcessAndTheAgentForgetsIt() {
    Sandbox sandbox = world.ready();
    // The process is running, and the row does not say so yet.
    world.store.hook(
        new InMemoryStore.CommitHook() {
          @Override
          public void before(Commit commit) {
            for (Change change : commit.changes()) {
              if (change instanceof Change.StartCall start) {
                world.store.hook(InMemoryStore.CommitHook.NONE);
                gate().cancel(OPERATION, start.call());
              }
            }
          }
        });
    Call call = world.ended(world.start(sandbox.id(), "sleep").id());
    assertThat(call.status()).isEqualTo(CallStatus.CANCELLED);
    World.await(() -> !world.backend.agent(sandbox.id()).knows(call.id().value()));
    assertThat(world.backend.agent(sandbox.id()).runs()).containsEntry(call.id().value(), 1);
    assertThat(world.ended(world.start(sandbox.id(), "true").id()).status())
        .isEqualTo(CallStatus.EXITED);
  }

  @Test
  void aStartThatSomebodyElseRecordedFirstDoesNotEndTheProcess() {
    Sandbox sandbox = world.ready();
    world.backend.program(
        "waits",
        self -> {
          self.awaitSignal(10);
          return 7;
        });
    world.store.hook(
        new InMemoryStore.CommitHook() {
          @Override
          public void before(Commit commit) {
            for (Change change : commit.changes()) {
              if (change instanceof Change.StartCall) {
                world.store.hook(InMemoryStore.CommitHook.NONE);
                CommitResult _ = world.store.commit(Commit.of(commit.sandbox(), change));
              }
            }
          }
        });
    Call call = world.running(sandbox.id(), "waits");
    gate().signal(OPERATION, call.id(), "USR1");
    Call ended = world.ended(call.id());
    assertThat(ended.status()).isEqualTo(CallStatus.EXITED);
    assertThat(ended.result().orElseThrow().exitCode()).isEqualTo(7);
  }

  @Test
  void anEndedCallIsForgottenByTheAgent() {
    Sandbox sandbox = world.ready();
    for (int i = 0; i < 70; i++) {
      assertThat(world.ended(world.start(sandbox.id(), "true").id()).status())
          .isEqualTo(CallStatus.EXITED);
    }
  }

  @Test
  void signalsTheProcessAndRecordsWhoDid() {
    Sandbox sandbox = world.ready();
    world.backend.program(
        "waits",
        self -> {
          self.awaitSignal(10);
          return 7;
        });
    Call call = world.running(sandbox.id(), "waits");
    gate().signal(OPERATION, call.id(), "USR1");
    assertThat(world.ended(call.id()).result().orElseThrow().exitCode()).isEqualTo(7);
    assertThat(world.events(sandbox.id(), "call.requested"))
        .extracting(event -> event.data().path("tool").asText())
        .containsExactly("process.start", "process.signal");
    assertThat(problem(() -> gate().signal(OPERATION, call.id(), "USR1")).code())
        .isEqualTo("call-ended");
    Problem unknown = problem(() -> gate().signal(OPERATION, call.id(), "NOPE"));
    assertThat(unknown).isInstanceOf(Problem.Invalid.class);
    assertThat(unknown.detail()).contains("TERM");
  }

  @Test
  void aSignalIsHeldToThePolicy() {
    Sandbox sandbox = world.ready();
    Call call = world.running(sandbox.id(), "sleep");
    assertThat(problem(() -> gate().signal(OPERATION, call.id(), "STOP")))
        .isInstanceOf(Problem.Denied.class);
    assertThat(world.backend.agent(sandbox.id()).process(call.id().value()).signals()).isEmpty();
  }

  @Test
  void aFileCallIsNotAProcess() {
    Sandbox sandbox = world.ready();
    problem(() -> gate().statFile(OPERATION, sandbox.id(), "absent"));
    Id stat = world.events(sandbox.id(), "call.requested").getFirst().call().orElseThrow();
    assertThat(problem(() -> gate().signal(OPERATION, stat, "TERM")).code())
        .isEqualTo("not-a-process");
  }

  // Stdin.

  private static ToolCall.ProcessStart cat(boolean stdin) {
    return new ToolCall.ProcessStart(
        List.of("cat"), "/workspace", Map.of(), Optional.of(Duration.ofSeconds(20)), stdin);
  }

  @Test
  void stdinIsAppendedWithAndWithoutOffset() {
    Sandbox sandbox = world.ready();
    Id call = world.running(sandbox.id(), cat(true)).id();
    assertThat(gate().stdin(OPERATION, call, Optional.empty(), utf8("abc"), false)).isEqualTo(3);
    assertThat(gate().stdin(OPERATION, call, Optional.of(3L), utf8("def"), false)).isEqualTo(6);
    assertThat(gate().stdin(OPERATION, call, Optional.of(3L), utf8("def"), false)).isEqualTo(6);
    Problem problem =
        problem(() -> gate().stdin(OPERATION, call, Optional.of(9L), utf8("x"), false));
    assertThat(problem.code()).isEqualTo("wrong-offset");
    assertThat(gate().stdin(OPERATION, call, Optional.empty(), new byte[0], true)).isEqualTo(6);
    world.ended(call);
    assertThat(stdout(call)).isEqualTo("abcdef");
    assertThat(
            problem(() -> gate().stdin(OPERATION, call, Optional.empty(), utf8("x"), true)).code())
        .isEqualTo("call-ended");
  }

  @Test
  void bigStdinGoesInPieces() {
    byte[] bytes = new byte[200_000];
    new Random(3).nextBytes(bytes);
    Sandbox sandbox = world.ready();
    Id call = world.running(sandbox.id(), cat(true)).id();
    assertThat(gate().stdin(OPERATION, call, Optional.empty(), bytes, true)).isEqualTo(200_000);
    world.ended(call);
    assertThat(gate().output(OPERATION, call, Channel.STDOUT, 0, 1 << 20).bytes()).isEqualTo(bytes);
  }

  @Test
  void aRepeatedPieceOfStdinIsAnsweredWithWhatTheProcessHasInAll() {
    Sandbox sandbox = world.ready();
    Id call = world.running(sandbox.id(), cat(true)).id();
    gate().stdin(OPERATION, call, Optional.of(0L), utf8("abcdef"), false);
    assertThat(gate().stdin(OPERATION, call, Optional.of(0L), utf8("abc"), false)).isEqualTo(6);
  }

  @Test
  void stdinNeedsACallThatWasStartedWithIt() {
    Sandbox sandbox = world.ready();
    Id call = world.running(sandbox.id(), "sleep").id();
    assertThat(
            problem(() -> gate().stdin(OPERATION, call, Optional.empty(), utf8("x"), false)).code())
        .isEqualTo("stdin-closed");
  }

  // Files.

  @Test
  void writesReadsListsMovesAndRemovesFiles() throws IOException {
    Sandbox sandbox = world.ready();
    byte[] bytes = new byte[300_000];
    new Random(4).nextBytes(bytes);
    Message.FileInfo info =
        gate()
            .writeFile(
                OPERATION, sandbox.id(), "a/b.bin", bytes.length, new ByteArrayInputStream(bytes));
    assertThat(info.sizeBytes()).isEqualTo(bytes.length);
    Calls.Download download = gate().readFile(OPERATION, sandbox.id(), "a/b.bin");
    try (InputStream content = download.content()) {
      assertThat(content.readAllBytes()).isEqualTo(bytes);
    }
    assertThat(world.call(download.call()).status()).isEqualTo(CallStatus.EXITED);
    assertThat(world.call(download.call()).result().orElseThrow().outputBytes())
        .isEqualTo(bytes.length);
    assertThat(gate().listFiles(OPERATION, sandbox.id(), "", 2).entries()).hasSize(1);
    gate().moveFile(OPERATION, sandbox.id(), "a/b.bin", "c.bin");
    assertThat(gate().statFile(OPERATION, sandbox.id(), "c.bin").sizeBytes())
        .isEqualTo(bytes.length);
    gate().removeFile(OPERATION, sandbox.id(), "c.bin", false);
    assertThat(problem(() -> gate().statFile(OPERATION, sandbox.id(), "c.bin")).code())
        .isEqualTo("file-not-found");
    assertThat(world.events(sandbox.id(), "file.changed"))
        .extracting(event -> event.data().path("change").asText())
        .containsExactly("written", "removed", "moved", "removed");
    assertThat(world.store.liveCalls(sandbox.id())).isEmpty();
  }

  @Test
  void filesAreHeldToThePolicy() {
    Sandbox sandbox = world.ready();
    assertThat(
            problem(() ->
                gate()
                    .writeFile(
                        OPERATION, sandbox.id(), "secret/x", 1, InputStream.nullInputStream())))
        .isInstanceOf(Problem.Denied.class);
    assertThat(problem(() -> gate().readFile(OPERATION, sandbox.id(), "secret/x")))
        .isInstanceOf(Problem.Denied.class);
    assertThat(world.store.liveCalls(sandbox.id())).isEmpty();
  }

  @Test
  void aReadThatTheAgentRefusesEndsItsCall() {
    Sandbox sandbox = world.ready();
    assertThat(problem(() -> gate().readFile(OPERATION, sandbox.id(), "absent")).code())
        .isEqualTo("file-not-found");
    assertThat(world.story(sandbox.id())).endsWith("call.ended failed");
    assertThat(world.store.liveCalls(sandbox.id())).isEmpty();
  }

  @Test
  @SuppressWarnings("InputStreamSlowMultibyteRead")
  void anUploadThatBreaksOffLeavesNothingAndIsRecordedAsFailed() {
    Sandbox sandbox = world.ready();
    InputStream broken =
        new SequenceInputStream(
            new ByteArrayInputStream(new byte[100_000]),
            new InputStream() {
              @Override
              public int read() throws IOException {
                throw new IOException("the client left");
              }

              @Override
              public int read(byte[] target, int offset, int length) throws IOException {
                throw new IOException("the client left");
              }
            });
    Problem problem =
        problem(() -> gate().writeFile(OPERATION, sandbox.id(), "x", 200_000, broken));
    assertThat(problem.code()).isEqualTo("upload-incomplete");
    assertThat(world.backend.agent(sandbox.id()).file("x")).isNull();
    assertThat(world.story(sandbox.id())).endsWith("call.ended failed");
  }

  @Test
  void anUploadThatIsNotAsLongAsDeclaredLeavesNothing() {
    Sandbox sandbox = world.ready();
    for (int size : new int[] {1, 3}) {
      Problem problem =
          problem(() ->
              gate()
                  .writeFile(
                      OPERATION, sandbox.id(), "x", size, new ByteArrayInputStream(new byte[2])));
      assertThat(problem.code()).isEqualTo("upload-incomplete");
      assertThat(world.backend.agent(sandbox.id()).file("x")).isNull();
    }
  }

  @Test
  void anUploadIsLimited() {
    world.limits = limits(8, 1 << 20);
    Sandbox sandbox = world.ready();
    Problem problem =
        problem(() ->
            gate()
                .writeFile(
                    OPERATION,
                    sandbox.id(),
                    "x",
                    -1,
                    new ByteArrayInputStream(new byte[(1 << 20) + 1])));
    assertThat(problem.code()).isEqualTo("file-too-large");
    assertThat(world.backend.agent(sandbox.id()).file("x")).isNull();
  }

  @Test
  void aFullDiskIsNamedAlsoWhenTheAgentSaysSoInMidUpload() {
    Sandbox sandbox = world.ready();
    world.backend.agent(sandbox.id()).diskBytes(100_000);
    Problem problem =
        problem(() ->
            gate()
                .writeFile(
                    OPERATION, sandbox.id(), "x", -1, new ByteArrayInputStream(new byte[2 << 20])));
    assertThat(problem.code()).isEqualTo("disk-full");
  }

  @Test
  void aDownloadClosedEarlyIsCancelled() throws IOException {
    Sandbox sandbox = world.ready();
    world.backend.agent(sandbox.id()).write("big", new byte[1 << 20]);
    Calls.Download download = gate().readFile(OPERATION, sandbox.id(), "big");
    assertThat(download.content().read()).isZero();
    download.content().close();
    download.content().close();
    assertThat(world.call(download.call()).status()).isEqualTo(CallStatus.CANCELLED);
    assertThat(world.events(sandbox.id(), "call.ended")).hasSize(1);
  }

  @Test
  void aPathOutsideTheWorkspaceIsInvalid() {
    Sandbox sandbox = world.ready();
    assertThat(problem(() -> gate().readFile(OPERATION, sandbox.id(), "../etc/passwd")).code())
        .isEqualTo("outside-workspace");
  }

  @Test
  void filesAndCallsOfASandboxThatHasGoneAreRefused() {
    Sandbox sandbox = world.ready();
    world.plane().sandboxes.destroy(OPERATION, sandbox.id());
    world.gone(sandbox.id());
    assertThat(problem(() -> world.start(sandbox.id(), "true")).code()).isEqualTo("sandbox-gone");
    assertThat(problem(() -> gate().statFile(OPERATION, sandbox.id(), "x")).code())
        .isEqualTo("sandbox-gone");
  }

  @Test
  void aSandboxDestroyedWhileCallsRunCancelsThem() {
    Sandbox sandbox = world.ready();
    Call call = world.running(sandbox.id(), "sleep");
    FakeProcess process = world.backend.agent(sandbox.id()).process(call.id().value());
    world.plane().sandboxes.destroy(OPERATION, sandbox.id());
    assertThat(world.gone(sandbox.id()).phase()).isEqualTo(Phase.GONE);
    assertThat(world.call(call.id()).status()).isEqualTo(CallStatus.CANCELLED);
    assertThat(world.story(sandbox.id()))
        .containsSubsequence(
            "sandbox.phase stopping", "call.ended cancelled", "sandbox.phase gone");
    World.await(() -> !process.running());
    assertThat(world.backend.states()).isEmpty();
  }
}
