package dev.foredeck.agent;

import static dev.foredeck.agent.RunningAgent.newCallId;
import static dev.foredeck.agent.RunningAgent.process;
import static dev.foredeck.agent.RunningAgent.shell;
import static dev.foredeck.agent.RunningAgent.withStdin;
import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.protocol.Channel;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Message.EndCause;
import dev.foredeck.protocol.Message.FailureCode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/// Processes, through the protocol, with an agent that runs as it does in a sandbox.
@Timeout(60)
class AgentTest {
  private static RunningAgent agent;

  @TempDir static Path folder;

  @BeforeAll
  static void start() throws IOException {
    agent = RunningAgent.start(folder);
  }

  @AfterAll
  static void stop() throws IOException {
    agent.close();
  }

  private static Followed run(String command) throws IOException {
    return run(shell(newCallId(), command));
  }

  private static Followed run(Message.StartProcess request) throws IOException {
    try (Connection connection = agent.request(request)) {
      Followed followed = Followed.toTheEnd(connection);
      connection.send(new Message.Release(request.callId()));
      assertThat(connection.receive()).isEqualTo(new Message.Done());
      return followed;
    }
  }

  private static FailureCode failure(Message message) {
    assertThat(message).isInstanceOf(Message.Failure.class);
    return ((Message.Failure) message).code();
  }

  private static void await(BooleanSupplier condition) throws InterruptedException {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
    while (!condition.getAsBoolean()) {
      assertThat(System.nanoTime()).as("waited long enough").isLessThan(deadline);
      Thread.sleep(10);
    }
  }

  @Test
  void runsAProgramAndTellsItsOutputAndExitCode() throws IOException {
    Followed followed = run("printf out; printf err >&2; exit 7");
    assertThat(followed.text()).isEqualTo("out");
    assertThat(followed.errorText()).isEqualTo("err");
    assertThat(followed.ended().exitCode()).isEqualTo(7);
    assertThat(followed.ended().signal()).isZero();
    assertThat(followed.ended().cause()).isEqualTo(EndCause.SELF);
    assertThat(followed.pid()).isPositive();
    assertThat(followed.ended().peakMemoryBytes()).isPositive();
  }

  @Test
  void tellsTheSignalThatEndedIt() throws IOException {
    assertThat(run("kill -SEGV $$").ended())
        .satisfies(ended -> {
          assertThat(ended.signal()).isEqualTo(11);
          assertThat(ended.cause()).isEqualTo(EndCause.SELF);
        });
  }

  @Test
  void whoAsksToBeTracedIsEnded() throws IOException {
    String script =
        "import ctypes, os; ctypes.CDLL(None).ptrace(0, 0, 0, 0); os.kill(os.getpid(), 18);"
            + " print('goes on')";
    Followed followed = run("exec python3 -c \"" + script + "\"");
    assertThat(followed.text()).isEmpty();
    assertThat(followed.ended().signal()).isEqualTo(9);
  }

  @Test
  void givesNothingButTheEnvironmentThatWasAskedFor() throws IOException {
    Followed followed = run(process(newCallId(), 60_000, 0, "env"));
    assertThat(followed.text().lines())
        .containsExactlyInAnyOrder("PATH=/usr/local/bin:/usr/bin:/bin", "K=v w");
  }

  @Test
  void givesNoDescriptorButTheThreeStreams() throws IOException {
    // ls itself opens the folder: 0, 1, 2 and that one.
    assertThat(run("ls /proc/self/fd").text().lines()).containsExactly("0", "1", "2", "3");
    assertThat(run("readlink /proc/self/fd/0").text().strip()).isEqualTo("/dev/null");
  }

  @Test
  void startsInASessionOfItsOwnWithDefaultSignals() throws IOException {
    Followed followed =
        run("cut -d' ' -f 1,6 /proc/$$/stat; grep -E 'Sig(Blk|Ign)' /proc/self/status");
    String pid = String.valueOf(followed.pid());
    assertThat(followed.text().lines())
        .containsExactly(pid + " " + pid, "SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000");
  }

  @Test
  void cannotBeLookedIntoByItsChildren() throws IOException {
    // Root may look into everything: where the test is root, the child is another user's process
    // only by name, so the flag itself is what is asked for.
    long agentPid = agent.pid();
    Followed followed =
        run("stat -c %u /proc/" + agentPid + "/environ; stat -c %a /proc/" + agentPid);
    assertThat(followed.text()).startsWith("0");
  }

  @Test
  void letsTheOomKillerPreferChildrenAndWritesNoCores() throws IOException {
    // The score is written right after the start.
    Followed followed = run("sleep 0.2; cat /proc/self/oom_score_adj; ulimit -c");
    assertThat(followed.text().lines()).containsExactly("500", "0");
  }

  @Test
  void refusesWhatCannotBeExecuted() throws IOException {
    Path plain = Files.writeString(agent.workspace().resolve("plain"), "no program");
    Path noInterpreter = Files.writeString(agent.workspace().resolve("broken"), "no program");
    assertThat(noInterpreter.toFile().setExecutable(true)).isTrue();
    for (String name :
        List.of(
            "no-such-program",
            "/no/such/program",
            plain.toString(),
            noInterpreter.toString(),
            "")) {
      Message answer = agent.ask(process(newCallId(), 1000, 0, name));
      assertThat(failure(answer)).as(name).isEqualTo(FailureCode.NOT_EXECUTABLE);
    }
  }

  @Test
  void refusesADirectoryThatIsMissing() throws IOException {
    Message.StartProcess p = shell(newCallId(), "true");
    for (String cwd : List.of("/no/such/directory", "/etc/passwd")) {
      Message answer =
          agent.ask(
              new Message.StartProcess(
                  p.callId(), p.argv(), p.env(), cwd, Optional.empty(), false, 1000, 0, 0, 0));
      assertThat(failure(answer)).isEqualTo(FailureCode.BAD_CWD);
    }
  }

  @Test
  void looksProgramsUpInThePathOfTheCall() throws IOException {
    Path bin = Files.createDirectories(agent.workspace().resolve("bin"));
    Path program = Files.writeString(bin.resolve("mine"), "#!/bin/sh\necho found $0\n");
    assertThat(program.toFile().setExecutable(true)).isTrue();
    Message.StartProcess p =
        new Message.StartProcess(
            newCallId(),
            List.of("mine"),
            Map.of("PATH", "/nowhere:bin"),
            agent.workspace().toString(),
            Optional.empty(),
            false,
            10_000,
            0,
            0,
            0);
    assertThat(run(p).text()).startsWith("found ").contains("bin/mine");
  }

  @Test
  void runsAScriptFromAPrivateFileAndRemovesItWhenReleased() throws IOException {
    String callId = newCallId();
    Message.StartProcess p =
        new Message.StartProcess(
            callId,
            List.of("sh", "-e"),
            Map.of("PATH", "/usr/bin:/bin"),
            "/",
            Optional.of(
                new Message.Script(".sh", "echo \"$0\"; stat -c %a \"$0\"\n".getBytes(UTF_8))),
            false,
            10_000,
            0,
            0,
            0);
    assertThat(run(p).text()).isEqualTo("/tmp/.foredeck-" + callId + "/main.sh\n600\n");
    assertThat(Path.of("/tmp/.foredeck-" + callId)).doesNotExist();
  }

  @Test
  void deliversRandomBytesOfBothChannelsWhole() throws Exception {
    byte[] out = new byte[3_000_001];
    byte[] err = new byte[2_000_003];
    Random random = new Random(7);
    random.nextBytes(out);
    random.nextBytes(err);
    Path outFile = Files.write(agent.workspace().resolve("out.bin"), out);
    Path errFile = Files.write(agent.workspace().resolve("err.bin"), err);
    Followed followed = run("cat " + errFile + " >&2 & cat " + outFile + "; wait");
    assertThat(sha256(followed.stdout())).isEqualTo(sha256(out));
    assertThat(sha256(followed.stderr())).isEqualTo(sha256(err));
  }

  private static String sha256(byte[] bytes) throws Exception {
    return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
  }

  @Test
  void goesOnAtAnOffsetAfterTheConnectionDied() throws Exception {
    byte[] bytes = new byte[5_000_000];
    new Random(8).nextBytes(bytes);
    Path file = Files.write(agent.workspace().resolve("resume.bin"), bytes);
    String callId = newCallId();
    Followed followed = new Followed();
    Connection connection = agent.request(shell(callId, "cat " + file));
    int connections = 1;
    while (!followed.follow(connection, 700_000)) {
      connection.close();
      connection =
          agent.request(
              new Message.Attach(callId, followed.stdout().length, followed.stderr().length));
      connections++;
    }
    connection.close();
    assertThat(connections).isGreaterThan(5);
    assertThat(sha256(followed.stdout())).isEqualTo(sha256(bytes));
    assertThat(agent.ask(new Message.Release(callId))).isEqualTo(new Message.Done());
  }

  @Test
  void sendsUnacknowledgedOutputAgainToTheNextReader() throws IOException {
    String callId = newCallId();
    try (Connection first = agent.request(shell(callId, "printf hello"))) {
      assertThat(first.receive()).isInstanceOf(Message.Started.class);
      assertThat(first.receive()).isInstanceOf(Message.Output.class);
    }
    try (Connection second = agent.request(new Message.Attach(callId, 2, 0))) {
      assertThat(second.receive()).isInstanceOf(Message.Started.class);
      Message.Output output = (Message.Output) Objects.requireNonNull(second.receive());
      assertThat(output.offset()).isEqualTo(2);
      assertThat(output.bytes()).isEqualTo("llo".getBytes(UTF_8));
      assertThat(second.receive()).isInstanceOf(Message.Ended.class);
    }
    // The attach at 2 acknowledged what comes before.
    assertThat(failure(agent.ask(new Message.Attach(callId, 1, 0))))
        .isEqualTo(FailureCode.WRONG_OFFSET);
    assertThat(failure(agent.ask(new Message.Attach(callId, 6, 0))))
        .isEqualTo(FailureCode.WRONG_OFFSET);
    assertThat(agent.ask(new Message.Release(callId))).isEqualTo(new Message.Done());
  }

  @Test
  void letsTheProcessWaitWhileTheSpoolIsFullAndLosesNothing() throws Exception {
    String callId = newCallId();
    Path done = agent.workspace().resolve("firehose-done");
    int size = 3 * Limits.SPOOL_BYTES;
    try (Connection connection =
        agent.request(shell(callId, "head -c " + size + " /dev/zero; touch " + done))) {
      assertThat(connection.receive()).isInstanceOf(Message.Started.class);
      long received = 0;
      while (received < Limits.SPOOL_BYTES) {
        Message.Output output = (Message.Output) Objects.requireNonNull(connection.receive());
        received += output.bytes().length;
      }
      // Nothing was acknowledged: exactly the spool came, and the writer waits.
      assertThat(received).isEqualTo(Limits.SPOOL_BYTES);
      Thread.sleep(300);
      assertThat(done).doesNotExist();
      connection.send(new Message.Ack(Channel.STDOUT, received));
      while (true) {
        Message message = Objects.requireNonNull(connection.receive());
        if (message instanceof Message.Ended ended) {
          assertThat(ended.stdoutBytes()).isEqualTo(size);
          break;
        }
        received += ((Message.Output) message).bytes().length;
        connection.send(new Message.Ack(Channel.STDOUT, received));
      }
      assertThat(received).isEqualTo(size);
    }
    assertThat(agent.ask(new Message.Release(callId))).isEqualTo(new Message.Done());
  }

  @Test
  void deliversWhatWasInThePipeWhenTheProcessExitedWithAFullSpool() throws Exception {
    String callId = newCallId();
    // More than the spool by less than the pipe: the process can exit.
    int size = Limits.SPOOL_BYTES + 60_000;
    // A second process holds the pipe open, so that only the clock can end the call.
    try (Connection connection =
        agent.request(shell(callId, "sleep 5 & head -c " + size + " /dev/zero"))) {
      assertThat(connection.receive()).isInstanceOf(Message.Started.class);
      long received = 0;
      while (received < Limits.SPOOL_BYTES) {
        received += ((Message.Output) Objects.requireNonNull(connection.receive())).bytes().length;
      }
      // Longer than the linger time, all of it with a full spool.
      Thread.sleep(600);
      connection.send(new Message.Ack(Channel.STDOUT, received));
      Message message = Objects.requireNonNull(connection.receive());
      while (message instanceof Message.Output output) {
        received += output.bytes().length;
        connection.send(new Message.Ack(Channel.STDOUT, received));
        message = Objects.requireNonNull(connection.receive());
      }
      assertThat(message).isInstanceOf(Message.Ended.class);
      assertThat(received).isEqualTo(size);
    }
    assertThat(agent.ask(new Message.Release(callId))).isEqualTo(new Message.Done());
  }

  @Test
  void endsTheCallWhileAServerLeftInTheBackgroundLivesOn() throws Exception {
    Path file = agent.workspace().resolve("server-log");
    // It prints after the call ended: without a reader SIGPIPE would end it.
    Followed followed =
        run(
            "(trap 'echo PIPE >> %s; exit' PIPE; for i in 1 2 3 4 5 6; do sleep 0.2; echo tick; done; echo alive > %s) & echo started"
                .formatted(file, file));
    assertThat(followed.text()).startsWith("started");
    assertThat(followed.ended().wallMillis()).isLessThan(1000);
    await(() -> Files.exists(file));
    assertThat(file).hasContent("alive");
  }

  @Test
  void endsAtOnceWhenThePipesAreClosed() throws IOException {
    Followed followed = run("sleep 3 > /dev/null 2>&1 & echo done");
    assertThat(followed.text()).isEqualTo("done\n");
  }

  @Test
  void endsAProcessThatIgnoresTerm() throws Exception {
    String callId = newCallId();
    Followed followed =
        run(process(callId, 300, 200, "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"));
    assertThat(followed.ended().cause()).isEqualTo(EndCause.TIMEOUT);
    assertThat(followed.ended().signal()).isEqualTo(9);
  }

  @Test
  void letsAProcessFinishOnTerm() throws Exception {
    Followed followed =
        run(
            process(
                newCallId(),
                300,
                10_000,
                "sh",
                "-c",
                "trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done"));
    assertThat(followed.ended().cause()).isEqualTo(EndCause.TIMEOUT);
    assertThat(followed.ended().exitCode()).isEqualTo(3);
    assertThat(followed.text()).isEqualTo("bye\n");
  }

  @Test
  void endsTheWholeSessionAtTheTimeoutAlsoWhileItForks() throws Exception {
    String callId = newCallId();
    try (Connection connection =
        agent.request(
            process(
                callId,
                500,
                0,
                "sh",
                "-c",
                "trap '' TERM; f() { while :; do (sleep 0.02; :) & sleep 0.01; done; }; f & f"
                    + " & f"))) {
      Followed followed = Followed.toTheEnd(connection);
      assertThat(followed.ended().cause()).isEqualTo(EndCause.TIMEOUT);
      ProcessSession session = new ProcessSession((int) followed.pid());
      await(() -> session.members().isEmpty());
    }
    assertThat(agent.ask(new Message.Release(callId))).isEqualTo(new Message.Done());
  }

  @Test
  void cancelsWithTheCauseItWasGiven() throws Exception {
    String callId = newCallId();
    try (Connection connection = agent.request(shell(callId, "sleep 60 & sleep 60"))) {
      assertThat(connection.receive()).isInstanceOf(Message.Started.class);
      assertThat(agent.ask(new Message.Terminate(callId, 5000, EndCause.CANCELLED)))
          .isEqualTo(new Message.Done());
      Message.Ended ended = (Message.Ended) Objects.requireNonNull(connection.receive());
      assertThat(ended.cause()).isEqualTo(EndCause.CANCELLED);
      assertThat(ended.signal()).isEqualTo(15);
    }
    assertThat(agent.ask(new Message.Release(callId))).isEqualTo(new Message.Done());
  }

  @Test
  void terminatesWhatACallLeftBehind() throws Exception {
    String callId = newCallId();
    try (Connection connection =
        agent.request(shell(callId, "(trap '' TERM; sleep 60) >/dev/null 2>&1 & echo x"))) {
      Followed followed = Followed.toTheEnd(connection);
      ProcessSession session = new ProcessSession((int) followed.pid());
      assertThat(session.members()).isNotEmpty();
      assertThat(agent.ask(new Message.Terminate(callId, 50, EndCause.CANCELLED)))
          .isEqualTo(new Message.Done());
      await(() -> session.members().isEmpty());
    }
    assertThat(agent.ask(new Message.Release(callId))).isEqualTo(new Message.Done());
  }

  @Test
  void signalsTheWholeSession() throws Exception {
    String callId = newCallId();
    try (Connection connection =
        agent.request(
            shell(
                callId,
                "trap 'echo got' USR1; (trap 'echo child; exit' USR1; echo up; while :; do sleep"
                    + " 0.05; done) & wait; wait"))) {
      Followed followed = new Followed();
      followed.follow(connection, 3);
      assertThat(agent.ask(new Message.Signal(callId, 10))).isEqualTo(new Message.Done());
      followed.follow(connection, Long.MAX_VALUE);
      assertThat(followed.text()).contains("got").contains("child");
    }
    assertThat(agent.ask(new Message.Release(callId))).isEqualTo(new Message.Done());
  }

  @Test
  void startsACallOnceAndNeverAgain() throws Exception {
    String callId = newCallId();
    Path file = agent.workspace().resolve("once");
    Message.StartProcess request = shell(callId, "echo run >> " + file + "; sleep 0.3; echo end");
    try (Connection first = agent.request(request)) {
      assertThat(first.receive()).isInstanceOf(Message.Started.class);
      try (Connection second = agent.request(request)) {
        assertThat(Followed.toTheEnd(second).text()).isEqualTo("end\n");
        // The newer reader closed the older one's connection.
        assertThat(first.receive()).isNull();
      }
    }
    try (Connection third = agent.request(new Message.Attach(callId, 4, 0))) {
      assertThat(third.receive()).isInstanceOf(Message.Started.class);
      assertThat(third.receive()).isInstanceOf(Message.Ended.class);
    }
    assertThat(file).hasContent("run");
    assertThat(agent.ask(new Message.Release(callId))).isEqualTo(new Message.Done());
    assertThat(failure(agent.ask(request))).isEqualTo(FailureCode.ALREADY_RAN);
    assertThat(failure(agent.ask(new Message.Attach(callId, 0, 0))))
        .isEqualTo(FailureCode.ALREADY_RAN);
    assertThat(file).hasContent("run");
  }

  @Test
  void mayTryAgainACallThatCouldNotBeStarted() throws Exception {
    String callId = newCallId();
    assertThat(failure(agent.ask(process(callId, 1000, 0, "no-such-program"))))
        .isEqualTo(FailureCode.NOT_EXECUTABLE);
    assertThat(run(shell(callId, "echo now")).text()).isEqualTo("now\n");
  }

  @Test
  void knowsNoCallThatItDidNotStart() throws IOException {
    String callId = newCallId();
    assertThat(failure(agent.ask(new Message.Attach(callId, 0, 0))))
        .isEqualTo(FailureCode.UNKNOWN_CALL);
    assertThat(failure(agent.ask(new Message.Signal(callId, 9))))
        .isEqualTo(FailureCode.UNKNOWN_CALL);
    assertThat(agent.ask(new Message.Release(callId))).isEqualTo(new Message.Done());
  }

  @Test
  void refusesAnAcknowledgementOfWhatWasNotSent() throws IOException {
    String callId = newCallId();
    try (Connection connection = agent.request(shell(callId, "sleep 0.5"))) {
      assertThat(connection.receive()).isInstanceOf(Message.Started.class);
      connection.send(new Message.Ack(Channel.STDOUT, 5));
      assertThat(failure(Objects.requireNonNull(connection.receive())))
          .isEqualTo(FailureCode.WRONG_OFFSET);
    }
    assertThat(agent.ask(new Message.Release(callId))).isEqualTo(new Message.Done());
  }

  @Test
  void endsAProcessThatIsReleasedWhileItRuns() throws Exception {
    String callId = newCallId();
    try (Connection connection = agent.request(shell(callId, "sleep 60"))) {
      Message.Started started = (Message.Started) Objects.requireNonNull(connection.receive());
      assertThat(agent.ask(new Message.Release(callId))).isEqualTo(new Message.Done());
      ProcessSession session = new ProcessSession((int) started.pid());
      await(() -> session.members().isEmpty());
    }
  }

  @Test
  void feedsStdinByOffset() throws Exception {
    String callId = newCallId();
    try (Connection connection = agent.request(withStdin(shell(callId, "cat")))) {
      assertThat(connection.receive()).isInstanceOf(Message.Started.class);
      assertThat(stdin(callId, 0, "hello", false)).isEqualTo(new Message.StdinAck(5));
      // The answer got lost and the request comes again, with more.
      assertThat(stdin(callId, 0, "hello wor", false)).isEqualTo(new Message.StdinAck(9));
      assertThat(failure(stdin(callId, 20, "x", false))).isEqualTo(FailureCode.WRONG_OFFSET);
      assertThat(stdin(callId, 9, "ld", true)).isEqualTo(new Message.StdinAck(11));
      assertThat(stdin(callId, 9, "ld", true)).isEqualTo(new Message.StdinAck(11));
      assertThat(failure(stdin(callId, 11, "x", true))).isEqualTo(FailureCode.STDIN_CLOSED);
      assertThat(Followed.toTheEnd(connection).text()).isEqualTo("hello world");
    }
    assertThat(agent.ask(new Message.Release(callId))).isEqualTo(new Message.Done());
  }

  private static Message stdin(String callId, long offset, String text, boolean end)
      throws IOException {
    return agent.ask(new Message.WriteStdin(callId, offset, text.getBytes(UTF_8), end));
  }

  @Test
  void waitsForAProcessThatReadsSlowlyAndSurvivesALostWriter() throws Exception {
    String callId = newCallId();
    byte[] bytes = new byte[Limits.CHUNK_BYTES];
    Arrays.fill(bytes, (byte) 'x');
    try (Connection connection = agent.request(withStdin(shell(callId, "read line; wc -c")))) {
      assertThat(connection.receive()).isInstanceOf(Message.Started.class);
      assertThat(agent.ask(new Message.WriteStdin(callId, 0, bytes, false)))
          .isEqualTo(new Message.StdinAck(bytes.length));
      // The pipe is full: this writer waits, and goes away.
      Connection lost = agent.request(new Message.WriteStdin(callId, bytes.length, bytes, false));
      Thread.sleep(100);
      lost.close();
      try (Connection again =
          agent.request(new Message.WriteStdin(callId, bytes.length, bytes, false))) {
        assertThat(stdinLater(callId, 2L * bytes.length)).isEqualTo(FailureCode.WRONG_OFFSET);
        // `read` reads byte by byte until a line ends, which frees the pipe.
        assertThat(again.receive()).isEqualTo(new Message.StdinAck(2L * bytes.length));
      }
      assertThat(stdin(callId, 2L * bytes.length, "\nrest", true))
          .isEqualTo(new Message.StdinAck(2L * bytes.length + 5));
      assertThat(Followed.toTheEnd(connection).text().strip()).isEqualTo("4");
    }
    assertThat(agent.ask(new Message.Release(callId))).isEqualTo(new Message.Done());
  }

  /// An offset that is surely wrong, asked for while another writer may be waiting.
  private static FailureCode stdinLater(String callId, long beyond) throws IOException {
    return failure(stdin(callId, beyond + 1, "x", false));
  }

  @Test
  void saysThatStdinIsClosedWhereNobodyReads() throws Exception {
    String callId = newCallId();
    try (Connection connection =
        agent.request(withStdin(shell(callId, "exec <&-; echo closed; sleep 1")))) {
      Followed followed = new Followed();
      followed.follow(connection, 7);
      assertThat(failure(stdin(callId, 0, "x", false))).isEqualTo(FailureCode.STDIN_CLOSED);
    }
    assertThat(agent.ask(new Message.Release(callId))).isEqualTo(new Message.Done());
    String without = newCallId();
    try (Connection connection = agent.request(shell(without, "sleep 0.3"))) {
      assertThat(connection.receive()).isInstanceOf(Message.Started.class);
      assertThat(failure(stdin(without, 0, "x", false))).isEqualTo(FailureCode.STDIN_CLOSED);
    }
    assertThat(agent.ask(new Message.Release(without))).isEqualTo(new Message.Done());
  }

  @Test
  void keepsABoundedNumberOfProcesses(@TempDir Path own) throws Exception {
    try (RunningAgent full = RunningAgent.start(own)) {
      String first = newCallId();
      for (int i = 0; i < Limits.PROCESSES; i++) {
        assertThat(full.ask(shell(i == 0 ? first : newCallId(), "yes")))
            .isInstanceOf(Message.Started.class);
      }
      // Nobody reads any of them, and the agent stands it.
      assertThat(failure(full.ask(shell(newCallId(), "true")))).isEqualTo(FailureCode.LIMIT);
      assertThat(full.ask(new Message.Release(first))).isEqualTo(new Message.Done());
      assertThat(full.ask(shell(newCallId(), "true"))).isInstanceOf(Message.Started.class);
      assertThat(full.isAlive()).isTrue();
    }
  }

  @Test
  void answersAPingAndRefusesWhatIsNoRequest() throws IOException {
    assertThat(agent.ask(new Message.Ping())).isEqualTo(new Message.Done());
    try (Connection connection = agent.connect()) {
      connection.send(new Message.Done());
      assertThat(failure(Objects.requireNonNull(connection.receive())))
          .isEqualTo(FailureCode.BAD_REQUEST);
    }
    assertThat(agent.ask(new Message.Ping())).isEqualTo(new Message.Done());
  }
}
