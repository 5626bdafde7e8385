package dev.foredeck.core.driver;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.AgentDialogue.Outcome;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.core.driver.Driver.AgentConnection;
import dev.foredeck.core.egress.EgressPath;
import dev.foredeck.policy.Boundary;
import dev.foredeck.policy.Isolation;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Message.FailureCode;
import java.nio.file.Files;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.random.RandomGenerator;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/// What the core relies on, whatever the backend. Each driver's test class extends this one.
///
/// Programs that every backend must offer: `echo WORD...` and `cat FILE`; the rest is asked of the
/// subclass. Nothing here waits for a fixed time: a wait ends when what it waits for has happened.
public abstract class DriverContract implements ContractReport.Subject {
  @RegisterExtension static final ContractReport REPORT = new ContractReport("driver");
  private static final int ROUNDS = 5;

  protected static final Duration TIMEOUT = Duration.ofSeconds(30);
  protected static final String TOKEN = "t0ken-of-the-contract";
  private static final RandomGenerator RANDOM = new java.security.SecureRandom();

  private final Ids ids = new Ids(Clock.systemUTC(), RANDOM);
  private final List<Id> made = new ArrayList<>();

  /// The driver's name, and what distinguishes this way of running it, as `local (runsc)`.
  @Override
  public String column() {
    return driver().name();
  }

  /// The driver under test; the same one until [#restart].
  protected abstract Driver driver();

  /// The control plane dies and another one starts: what [#driver] returns from here on knows
  /// nothing but what the backend kept.
  protected abstract void restart();

  /// Closes the driver and removes what the test class made for it. Called after each test, when
  /// its sandboxes are destroyed.
  protected abstract void release() throws Exception;

  /// Ends the sandbox's agent behind the driver's back.
  protected abstract void endAgent(Id sandbox) throws Exception;

  /// A program that appends `x` and a newline to a file of the workspace.
  protected abstract List<String> appendTo(String file);

  protected LaunchSpec spec() {
    return spec(Boundary.NONE);
  }

  protected LaunchSpec spec(Boundary boundary) {
    Id id = ids.sandbox();
    made.add(id);
    return new LaunchSpec(
        id,
        new Id("ten0000000000contract"),
        driver().templates().getFirst(),
        new Resources(1000, 256L << 20, 64L << 20, 128),
        boundary,
        TOKEN,
        Map.of(),
        Instant.parse("2100-01-01T00:00:00Z"));
  }

  protected Id launched() throws DriverException {
    LaunchSpec spec = spec();
    driver().launch(spec, TIMEOUT);
    return spec.sandbox();
  }

  protected AgentConnection connect(Id sandbox) throws DriverException {
    return driver().connect(sandbox, TOKEN, TIMEOUT);
  }

  protected Outcome run(Id sandbox, String... argv) throws Exception {
    return AgentDialogue.run(connect(sandbox), ids.call().value(), argv);
  }

  protected String callId() {
    return ids.call().value();
  }

  @AfterEach
  void destroyWhatWasMade() throws Exception {
    try {
      for (Id id : made) {
        driver().destroy(id, TIMEOUT);
      }
    } finally {
      release();
    }
  }

  @Test
  void theProbeFindsNothing() {
    assertThat(driver().probe(TIMEOUT)).isEmpty();
    assertThat(driver().templates()).isNotEmpty();
  }

  @Test
  void launchesAnAgentThatRunsPrograms() throws Exception {
    Id id = launched();

    Outcome outcome = run(id, "echo", "hello", "world");

    assertThat(outcome.text()).isEqualTo("hello world\n");
    assertThat(outcome.exitCode()).isZero();
    assertThat(driver().inspect(id, TIMEOUT)).contains(new BackendState(id, Status.RUNNING, ""));
  }

  /// The figures go to the table in the documents; nothing here is held to a time.
  @Test
  void makesAndRemovesOneAfterAnother() throws Exception {
    for (int round = 0; round < ROUNDS; round++) {
      LaunchSpec spec = spec();
      long began = System.nanoTime();
      driver().launch(spec, TIMEOUT);
      AgentConnection agent = connect(spec.sandbox());
      long greeted = System.nanoTime();
      assertThat(AgentDialogue.run(agent, callId(), "echo", "hello").text()).isEqualTo("hello\n");
      long answered = System.nanoTime();
      driver().destroy(spec.sandbox(), TIMEOUT);
      assertThat(driver().inspect(spec.sandbox(), TIMEOUT)).isEmpty();
      REPORT.measured("launch until the agent greets", greeted - began);
      REPORT.measured("`echo` on a greeted connection", answered - greeted);
      REPORT.measured("destroy until nothing is left", System.nanoTime() - answered);
    }
  }

  @Test
  void handsOutAsManyConnectionsAsAreTaken() throws Exception {
    Id id = launched();
    String boot = null;
    for (int i = 0; i < 5; i++) {
      AgentConnection agent = connect(id);
      if (boot != null) {
        assertThat(agent.greeting().bootId()).isEqualTo(boot);
      }
      boot = agent.greeting().bootId();
      assertThat(AgentDialogue.ask(agent, new Message.Ping())).isEqualTo(new Message.Done());
    }
  }

  @Test
  void launchingAgainChangesNothing() throws Exception {
    LaunchSpec spec = spec();
    driver().launch(spec, TIMEOUT);
    AgentConnection first = connect(spec.sandbox());
    assertThat(AgentDialogue.ask(first, new Message.Ping())).isEqualTo(new Message.Done());

    driver().launch(spec, TIMEOUT);

    AgentConnection second = connect(spec.sandbox());
    assertThat(second.greeting().bootId()).isEqualTo(first.greeting().bootId());
    second.connection().close();
  }

  @Test
  void launchesAtOnceMakeOneSandbox() throws Exception {
    LaunchSpec spec = spec();
    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<Callable<Void>> launches = new ArrayList<>();
      for (int i = 0; i < 4; i++) {
        launches.add(() -> {
          driver().launch(spec, TIMEOUT);
          return null;
        });
      }
      for (Future<Void> launch : threads.invokeAll(launches)) {
        launch.get();
      }
    }
    assertThat(run(spec.sandbox(), "echo", "one").text()).isEqualTo("one\n");
    assertThat(driver().list(TIMEOUT).stream().filter(s -> s.sandbox().equals(spec.sandbox())))
        .hasSize(1);
  }

  @Test
  void listsWhatIsThere() throws Exception {
    Id one = launched();
    Id two = launched();

    assertThat(driver().list(TIMEOUT))
        .contains(
            new BackendState(one, Status.RUNNING, ""), new BackendState(two, Status.RUNNING, ""));
  }

  @Test
  void destroyLeavesNothingAndMayBeRepeated() throws Exception {
    Id id = launched();
    assertThat(run(id, "echo", "x").exitCode()).isZero();

    driver().destroy(id, TIMEOUT);

    assertThat(driver().inspect(id, TIMEOUT)).isEmpty();
    assertThat(driver().list(TIMEOUT)).noneMatch(state -> state.sandbox().equals(id));
    driver().destroy(id, TIMEOUT);
    assertThatThrownBy(() -> connect(id)).isInstanceOf(DriverException.NotThere.class);
  }

  @Test
  void whatNeverWasIsNotThere() throws Exception {
    Id id = spec().sandbox();

    assertThat(driver().inspect(id, TIMEOUT)).isEmpty();
    assertThatThrownBy(() -> connect(id)).isInstanceOf(DriverException.NotThere.class);
    driver().destroy(id, TIMEOUT);
  }

  @Test
  void handsOutNothingForAnotherToken() throws Exception {
    Id id = launched();

    assertThatThrownBy(() -> driver().connect(id, "another", TIMEOUT))
        .isInstanceOf(DriverException.Refused.class)
        .hasMessageNotContaining(TOKEN);
  }

  @Test
  void refusesATemplateItDoesNotHave() {
    LaunchSpec spec = spec();
    LaunchSpec unknown =
        new LaunchSpec(
            spec.sandbox(),
            spec.tenant(),
            "no-such-template",
            spec.resources(),
            spec.boundary(),
            spec.token(),
            spec.labels(),
            spec.expiresAt());

    assertThatThrownBy(() -> driver().launch(unknown, TIMEOUT))
        .isInstanceOf(DriverException.Refused.class)
        .hasMessageContaining("no-such-template");
  }

  @Test
  void refusesABoundaryThatItCannotEnforce() throws Exception {
    Boundary writable = files(List.of(), List.of("/workspace", "/usr/local"));
    Boundary readOnly = files(List.of("/workspace/.git"), List.of());

    assertThatThrownBy(() -> driver().launch(spec(writable), TIMEOUT))
        .isInstanceOf(DriverException.Refused.class)
        .hasMessageContaining("/usr/local");
    assertThatThrownBy(() -> driver().launch(spec(readOnly), TIMEOUT))
        .isInstanceOf(DriverException.Refused.class)
        .hasMessageContaining("/workspace/.git");
    for (Id id : made) {
      assertThat(driver().inspect(id, TIMEOUT)).isEmpty();
    }
  }

  @Test
  void noticesAtOnceThatTheAgentHasEnded() throws Exception {
    Id id = launched();
    connect(id).connection().close();

    endAgent(id);

    // With an hour to wait: only noticing ends this test.
    assertThatThrownBy(
            () -> {
              while (true) {
                driver().connect(id, TOKEN, Duration.ofHours(1)).connection().close();
              }
            })
        .isInstanceOf(DriverException.NotThere.class);
    assertThat(driver().inspect(id, TIMEOUT).orElseThrow().status()).isEqualTo(Status.EXITED);
    assertThat(driver().list(TIMEOUT))
        .anyMatch(s -> s.sandbox().equals(id) && s.status() == Status.EXITED);
  }

  @Test
  void aDestroyFreesWhoWaitsForAConnection() throws Exception {
    Id id = launched();
    // The agent keeps few spare connections: hold them all, so that the next must wait.
    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      Future<Boolean> waiting =
          threads.submit(() -> {
            List<Connection> held = new ArrayList<>();
            try {
              while (true) {
                held.add(driver().connect(id, TOKEN, Duration.ofHours(1)).connection());
              }
            } catch (DriverException.NotThere _) {
              return true;
            } finally {
              held.forEach(Connection::close);
            }
          });
      driver().destroy(id, TIMEOUT);
      assertThat(waiting.get()).isTrue();
    }
  }

  @Test
  void anotherControlPlaneAdoptsSandboxesAndTheirCalls() throws Exception {
    Id id = launched();
    String call = callId();
    AgentConnection before = connect(id);
    before.connection().send(AgentDialogue.start(call, appendTo("count")));
    assertThat(before.connection().receive()).isInstanceOf(Message.Started.class);

    restart();

    assertThat(driver().list(TIMEOUT)).contains(new BackendState(id, Status.RUNNING, ""));
    AgentConnection after = connect(id);
    assertThat(after.greeting().bootId()).isEqualTo(before.greeting().bootId());
    // The same call again: the agent attaches and runs nothing.
    after.connection().send(AgentDialogue.start(call, appendTo("count")));
    try (Connection connection = after.connection()) {
      assertThat(AgentDialogue.collect(connection, 0, 0).exitCode()).isZero();
    }
    assertThat(run(id, "cat", "count").text()).isEqualTo("x\n");
    assertThat(AgentDialogue.ask(connect(id), new Message.Release(call)))
        .isEqualTo(new Message.Done());
    try (Connection connection = connect(id).connection()) {
      connection.send(AgentDialogue.start(call, appendTo("count")));
      assertThat(AgentDialogue.collect(connection, 0, 0).failure())
          .isEqualTo(FailureCode.ALREADY_RAN);
    }
    assertThat(run(id, "cat", "count").text()).isEqualTo("x\n");
  }

  @Test
  void anotherControlPlaneDestroysWhatItDidNotLaunch() throws Exception {
    Id id = launched();

    restart();
    driver().destroy(id, TIMEOUT);

    assertThat(driver().inspect(id, TIMEOUT)).isEmpty();
  }

  @Test
  void theEgressSocketHasItsFolder() throws Exception {
    Id id = launched();

    if (driver().egressPath(id, TOKEN).orElse(null)
        instanceof EgressPath.UnixSocket(java.nio.file.Path socket)) {
      assertThat(Files.isDirectory(socket.resolveSibling(""))).isTrue();
    }
  }

  protected static Boundary files(List<String> readOnly, List<String> readWrite) {
    return new Boundary(
        readOnly,
        readWrite,
        OptionalLong.empty(),
        OptionalLong.empty(),
        OptionalInt.empty(),
        OptionalInt.empty(),
        Optional.empty(),
        Isolation.STANDARD);
  }
}
