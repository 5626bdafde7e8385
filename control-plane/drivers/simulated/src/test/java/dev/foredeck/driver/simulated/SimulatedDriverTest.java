package dev.foredeck.driver.simulated;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.AgentDialogue;
import dev.foredeck.core.driver.AgentDialogue.Outcome;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.Driver.AgentConnection;
import dev.foredeck.core.driver.DriverContract;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.driver.simulated.Faults.AgentFault;
import dev.foredeck.driver.simulated.Faults.VerbFault;
import dev.foredeck.protocol.Channel;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Message.EndCause;
import dev.foredeck.protocol.Message.FailureCode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// The contract on simulated sandboxes, what their programs do, and their faults.
class SimulatedDriverTest extends DriverContract {
  private final SimulatedBackend backend = new SimulatedBackend(Pace.real(), 7, 64);
  private SimulatedDriver driver = new SimulatedDriver(backend);

  @Override
  protected Driver driver() {
    return driver;
  }

  @Override
  protected void restart() {
    driver.close();
    driver = new SimulatedDriver(backend);
  }

  @Override
  protected void release() {
    backend.setFaults(Faults.NONE);
    driver.close();
  }

  @Override
  protected void endAgent(Id sandbox) {
    backend.endAgent(sandbox);
  }

  @Override
  protected List<String> appendTo(String file) {
    return List.of("append", file, "x");
  }

  @Test
  void randomOutputIsTheSameForTheSameSeedOnBothChannels() throws Exception {
    Id id = launched();

    Outcome outcome = run(id, "random", "42", "3000000");

    assertThat(outcome.stdout()).isEqualTo(Programs.randomOutput(Channel.STDOUT, 42, 3_000_000));
    assertThat(outcome.stderr()).isEqualTo(Programs.randomOutput(Channel.STDERR, 42, 3_000_000));
    assertThat(outcome.stdout()).isNotEqualTo(outcome.stderr());
  }

  @Test
  void aProgramThatNobodyReadsWaitsAndLosesNothing() throws Exception {
    Id id = launched();
    String call = callId();
    Message.StartProcess start =
        AgentDialogue.start(call, List.of("random", "9", "" + 3 * Limits.SPOOL_BYTES));
    // A reader that acknowledges nothing gets one spool of a channel at most.
    long received = 0;
    try (Connection connection = connect(id).connection()) {
      connection.send(start);
      while (received < Limits.SPOOL_BYTES) {
        if (connection.receive() instanceof Message.Output output
            && output.channel() == Channel.STDOUT) {
          received += output.bytes().length;
        }
      }
    }
    assertThat(received).isEqualTo(Limits.SPOOL_BYTES);

    try (Connection connection = connect(id).connection()) {
      connection.send(new Message.Attach(call, 0, 0));
      Outcome outcome = AgentDialogue.collect(connection, 0, 0);
      assertThat(outcome.stdout())
          .isEqualTo(Programs.randomOutput(Channel.STDOUT, 9, 3 * Limits.SPOOL_BYTES));
    }
    assertThat(backend.timesStarted(call)).isEqualTo(1);
  }

  @Test
  void aNewReaderGoesOnAtTheCommittedOffset() throws Exception {
    Id id = launched();
    String call = callId();
    byte[] whole = Programs.randomOutput(Channel.STDOUT, 5, 500_000);
    long committed = 0;
    try (Connection connection = connect(id).connection()) {
      connection.send(AgentDialogue.start(call, List.of("random", "5", "500000")));
      while (committed < 100_000) {
        if (connection.receive() instanceof Message.Output output
            && output.channel() == Channel.STDOUT) {
          committed += output.bytes().length;
          connection.send(new Message.Ack(Channel.STDOUT, committed));
        }
      }
    }
    restart();
    try (Connection connection = connect(id).connection()) {
      connection.send(new Message.Attach(call, committed, 0));
      Outcome outcome = AgentDialogue.collect(connection, committed, 0);
      assertThat(outcome.stdout())
          .isEqualTo(java.util.Arrays.copyOfRange(whole, (int) committed, whole.length));
    }
    // What was acknowledged is gone: asking for it again is an error, and no silence.
    try (Connection connection = connect(id).connection()) {
      connection.send(new Message.Attach(call, committed - 1, 0));
      assertThat(AgentDialogue.collect(connection, 0, 0).failure())
          .isEqualTo(FailureCode.WRONG_OFFSET);
    }
  }

  @Test
  void programsEndWithTheirExitCode() throws Exception {
    Id id = launched();

    assertThat(run(id, "exit", "3").exitCode()).isEqualTo(3);
    assertThat(run(id, "do", "echo", "a", ";", "error", "b", ";", "exit", "2", ";", "echo", "c"))
        .satisfies(outcome -> {
          assertThat(outcome.text()).isEqualTo("a\n");
          assertThat(outcome.errors()).isEqualTo("b\n");
          assertThat(outcome.exitCode()).isEqualTo(2);
        });
    assertThat(run(id, "no-such-program").failure()).isEqualTo(FailureCode.NOT_EXECUTABLE);
  }

  @Test
  void countsWhatProgramsDoToTheOutside() throws Exception {
    Id id = launched();

    assertThat(run(id, "touch", "mark").exitCode()).isZero();
    assertThat(run(id, "touch", "mark").exitCode()).isZero();

    assertThat(backend.timesDone(id, "touch mark")).isEqualTo(2);
    assertThat(backend.mostStarts()).isEqualTo(1);
  }

  @Test
  void stdinArrivesOnceHoweverOftenItIsSent() throws Exception {
    Id id = launched();
    String call = callId();
    Message.StartProcess start =
        new Message.StartProcess(
            call,
            List.of("cat"),
            Map.of(),
            "/workspace",
            Optional.empty(),
            true,
            60_000,
            1_000,
            0,
            0);
    try (Connection reader = connect(id).connection()) {
      reader.send(start);
      assertThat(reader.receive()).isInstanceOf(Message.Started.class);
      byte[] hello = "hello".getBytes(StandardCharsets.UTF_8);
      for (int i = 0; i < 2; i++) {
        assertThat(AgentDialogue.ask(connect(id), new Message.WriteStdin(call, 0, hello, false)))
            .isEqualTo(new Message.StdinAck(5));
      }
      assertThat(AgentDialogue.ask(connect(id), new Message.WriteStdin(call, 7, hello, false)))
          .isInstanceOfSatisfying(
              Message.Failure.class,
              failure -> assertThat(failure.code()).isEqualTo(FailureCode.WRONG_OFFSET));
      assertThat(AgentDialogue.ask(connect(id), new Message.WriteStdin(call, 5, new byte[0], true)))
          .isEqualTo(new Message.StdinAck(5));
      assertThat(AgentDialogue.collect(reader, 0, 0).text()).isEqualTo("hello");
    }
  }

  @Test
  void aTimeoutEndsAProgramAndOneThatIgnoresTermIsKilled() throws Exception {
    Id id = launched();

    assertThat(ended(id, "spin").signal()).isEqualTo(15);
    assertThat(ended(id, "stubborn").signal()).isEqualTo(9);
  }

  private Message.Ended ended(Id id, String program) throws Exception {
    try (Connection connection = connect(id).connection()) {
      connection.send(
          new Message.StartProcess(
              callId(), List.of(program), Map.of(), "/", Optional.empty(), false, 20, 20, 0, 0));
      Message.Ended ended = AgentDialogue.collect(connection, 0, 0).ended();
      assertThat(ended).isNotNull();
      assertThat(ended.cause()).isEqualTo(EndCause.TIMEOUT);
      return ended;
    }
  }

  @Test
  void filesStayInTheWorkspaceAndInItsLimit() throws Exception {
    Id id = launched();
    try (Connection connection = connect(id).connection()) {
      connection.send(new Message.WriteFile("a/b.txt", 0600));
      connection.send(new Message.Chunk("text".getBytes(StandardCharsets.UTF_8)));
      connection.send(new Message.ChunksEnd(4));
      assertThat(connection.receive())
          .isInstanceOfSatisfying(
              Message.FileInfo.class, info -> assertThat(info.sizeBytes()).isEqualTo(4));
    }
    assertThat(run(id, "cat", "a/b.txt").text()).isEqualTo("text");
    assertThat(failure(id, new Message.StatFile("../etc/passwd")))
        .isEqualTo(FailureCode.OUTSIDE_WORKSPACE);
    assertThat(failure(id, new Message.StatFile("none"))).isEqualTo(FailureCode.NOT_FOUND);
    assertThat(failure(id, new Message.RemoveFile("a", false))).isEqualTo(FailureCode.NOT_EMPTY);
    assertThat(AgentDialogue.ask(connect(id), new Message.MoveFile("a", "c")))
        .isEqualTo(new Message.Done());
    assertThat(AgentDialogue.ask(connect(id), new Message.ListFiles("", 2)))
        .isInstanceOfSatisfying(
            Message.FileList.class,
            list ->
                assertThat(list.entries())
                    .extracting(Message.FileInfo::path)
                    .containsExactly("c", "c/b.txt"));
    try (Connection connection = connect(id).connection()) {
      connection.send(new Message.WriteFile("big", 0600));
      try {
        for (int i = 0; i < 2_000; i++) {
          connection.send(new Message.Chunk(new byte[Limits.CHUNK_BYTES]));
        }
      } catch (IOException _) {
        // The agent may have closed by now; its answer arrives all the same.
      }
      assertThat(connection.receive())
          .isInstanceOfSatisfying(
              Message.Failure.class,
              failure -> assertThat(failure.code()).isEqualTo(FailureCode.DISK_FULL));
    }
  }

  private FailureCode failure(Id id, Message.Request request) throws Exception {
    Message answer = AgentDialogue.ask(connect(id), request);
    assertThat(answer).isInstanceOf(Message.Failure.class);
    return ((Message.Failure) answer).code();
  }

  @ParameterizedTest
  @EnumSource(
      value = AgentFault.class,
      names = {"UNKNOWN_VERSION", "WRONG_TOKEN"})
  void aWrongGreetingIsNeverHandedOut(AgentFault fault) throws Exception {
    Id id = launched();
    List<AgentFault> next = new ArrayList<>(List.of(fault, fault));
    backend.setFaults(
        new Faults() {
          @Override
          public AgentFault onConnect(Id sandbox) {
            return next.isEmpty() ? AgentFault.NONE : next.removeFirst();
          }
        });

    assertThat(connect(id).greeting().protocolMax()).isEqualTo(Limits.PROTOCOL_MAX);
    assertThat(next).isEmpty();
  }

  @Test
  void aLyingAgentIsSeenAsItWouldBeOnASocket() throws Exception {
    Id id = launched();

    lie(AgentFault.OVERSIZED_MESSAGE);
    assertThatThrownBy(() -> run(id, "echo", "x"))
        .isInstanceOf(dev.foredeck.protocol.Wire.MalformedMessageException.class);
    lie(AgentFault.OFFSET_TOO_HIGH);
    assertThatThrownBy(() -> run(id, "echo", "x")).hasMessageContaining("offset");
    lie(AgentFault.OFFSET_TOO_LOW);
    assertThatThrownBy(() -> run(id, "echo", "x")).hasMessageContaining("offset");
    lie(AgentFault.DROPS_CONNECTION);
    assertThatThrownBy(() -> run(id, "echo", "x")).isInstanceOf(IOException.class);
    lie(AgentFault.NEVER_ANSWERS);
    AgentConnection silent = connect(id);
    silent.connection().send(new Message.Ping());
    Thread patience = Thread.ofVirtual().start(() -> close(silent));
    assertThatThrownBy(() -> silent.connection().receive()).isInstanceOf(IOException.class);
    patience.join();
    lie(AgentFault.DIES);
    assertThatThrownBy(() -> run(id, "spin")).isInstanceOf(IOException.class);
    assertThat(driver.inspect(id, TIMEOUT).orElseThrow().status()).isEqualTo(Status.EXITED);
  }

  private static void close(AgentConnection silent) {
    silent.connection().close();
  }

  private void lie(AgentFault fault) {
    backend.setFaults(
        new Faults() {
          @Override
          public AgentFault onConnect(Id sandbox) {
            return fault;
          }
        });
  }

  @ParameterizedTest
  @EnumSource(VerbFault.class)
  void aLaunchThatWentWrongIsCompletedByTheNext(VerbFault fault) throws Exception {
    LaunchSpec spec = spec();
    backend.setFaults(
        new Faults() {
          @Override
          public VerbFault onLaunch(Id sandbox) {
            return fault;
          }
        });
    boolean failed = false;
    try {
      driver.launch(spec, java.time.Duration.ofMillis(10));
    } catch (DriverException _) {
      failed = true;
    }
    assertThat(failed).isEqualTo(fault != VerbFault.NONE);
    backend.setFaults(Faults.NONE);

    driver.launch(spec, TIMEOUT);

    assertThat(run(spec.sandbox(), "echo", "x").text()).isEqualTo("x\n");
  }

  @ParameterizedTest
  @EnumSource(VerbFault.class)
  void aDestroyThatWentWrongIsCompletedByTheNext(VerbFault fault) throws Exception {
    Id id = launched();
    backend.setFaults(
        new Faults() {
          @Override
          public VerbFault onDestroy(Id sandbox) {
            return fault;
          }
        });
    try {
      driver.destroy(id, java.time.Duration.ofMillis(10));
    } catch (DriverException _) {
      // What remains is seen, and cleared next time.
    }
    backend.setFaults(Faults.NONE);

    driver.destroy(id, TIMEOUT);

    assertThat(driver.list(TIMEOUT)).noneMatch(state -> state.sandbox().equals(id));
  }

  @Test
  void aSeedReplaysItsFaults() {
    Id id = new Id("sbx0000000000000000");
    List<Object> one = faults(new SeededFaults(3, 0.5, 0.5, 10), id);

    assertThat(faults(new SeededFaults(3, 0.5, 0.5, 10), id)).isEqualTo(one);
    assertThat(faults(new SeededFaults(4, 0.5, 0.5, 10), id)).isNotEqualTo(one);
  }

  private static List<Object> faults(Faults faults, Id id) {
    List<Object> seen = new ArrayList<>();
    for (int i = 0; i < 50; i++) {
      seen.add(faults.onLaunch(id));
      seen.add(faults.onDestroy(id));
      seen.add(faults.onConnect(id));
      seen.add(faults.latencyMillis(Faults.Occasion.START, id));
    }
    return seen;
  }

  @Test
  void aFullBackendSaysSo() throws Exception {
    SimulatedBackend small = new SimulatedBackend(Pace.real(), 1, 1);
    try (SimulatedDriver other = new SimulatedDriver(small)) {
      other.launch(spec(), TIMEOUT);
      LaunchSpec second = spec();
      assertThatThrownBy(() -> other.launch(second, TIMEOUT))
          .isInstanceOf(DriverException.Full.class);
    }
  }
}
