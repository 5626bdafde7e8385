package dev.foredeck.core.kit;

import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Problem;
import dev.foredeck.core.ProblemException;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallStatus;
import dev.foredeck.core.gate.ToolCall;
import dev.foredeck.core.pool.PoolPace;
import dev.foredeck.core.pool.PoolSetting;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Event;
import dev.foredeck.core.store.InMemoryStore;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.function.BooleanSupplier;

/// A store, a backend and a control plane over them: what a test starts from.
public final class World implements AutoCloseable {
  private static final long PATIENCE_MILLIS = 10_000;

  /// Short; the clock that ages are told by stands still.
  public static final PoolPace POOL_PACE =
      new PoolPace(
          Duration.ofHours(1),
          Duration.ofMinutes(1),
          Duration.ofSeconds(30),
          Duration.ofMillis(20),
          Duration.ofMillis(1),
          Duration.ofSeconds(1),
          Duration.ofSeconds(60),
          Duration.ofSeconds(30));

  public static final String POLICY =
      """
      apiVersion: foredeck/v1
      kind: SandboxPolicy
      metadata: {name: default}
      boundary:
        limits: {memory: 2Gi, disk: 4Gi, cpu: 2, pids: 128, lifetime: 2h}
      egress:
        - {id: pypi, hosts: [pypi.org, files.pythonhosted.org]}
      rules:
        - {id: no-rm, effect: deny, action: process.start, argv: [rm], reason: nothing is removed here}
        - {id: no-secrets, effect: deny, action: file.*, when: "file.path.startsWith('secret')"}
        - {id: no-stop, effect: deny, action: process.signal, when: "signal.name == 'STOP'"}
        - {id: work, effect: allow, action: [process.start, process.signal, code.run, file.*]}
      """;

  public final InMemoryStore store = new InMemoryStore();
  public final FakeBackend backend = new FakeBackend();
  public final FakeDriver driver = new FakeDriver(backend, Fault.NONE);
  public final FakeGateway gateway = new FakeGateway();
  public final ShiftedClock clock = new ShiftedClock();
  public final Ids ids = new Ids(clock, new Random(7));
  public Limits limits = Limits.DEFAULT;
  public Map<String, String> policies = Map.of("default", POLICY);
  public List<PoolSetting> pools = List.of();
  private Optional<ControlPlane> running = Optional.empty();

  public World() {
    backend.program("true", _ -> 0);
    backend.program("false", _ -> 1);
    backend.program(
        "echo",
        self -> {
          List<String> words = self.start().argv();
          self.print(String.join(" ", words.subList(1, words.size())) + "\n");
          return 0;
        });
    backend.program(
        "sleep",
        self -> {
          self.waitForever();
          return 0;
        });
    backend.program(
        "cat",
        self -> {
          self.write(dev.foredeck.protocol.Channel.STDOUT, self.readAll());
          return 0;
        });
  }

  /// Small limits: two sandboxes a tenant, two feeds, and this grace.
  public static Limits limits(Duration grace) {
    return TestLimits.with(Map.of("sandboxesPerTenant", 2, "feedsPerTenant", 2, "grace", grace));
  }

  /// The control plane, begun at the first use.
  public ControlPlane plane() {
    ControlPlane plane =
        running.orElseGet(() ->
            new ControlPlane(
                store,
                driver,
                gateway,
                policies,
                pools,
                POOL_PACE,
                clock,
                ids,
                limits,
                ControlPlane.IMPATIENT));
    running = Optional.of(plane);
    return plane;
  }

  /// Stops the control plane in good order and begins another one over the same store and backend.
  public ControlPlane restart() {
    close();
    clock.advance(Duration.ofMillis(1));
    plane().launcher.adopt();
    return plane();
  }

  @Override
  public void close() {
    running.ifPresent(plane -> {
      plane.launcher.close();
      plane.pools.close();
    });
    running = Optional.empty();
  }

  /// A ready sandbox without a call.
  public Sandbox ready() {
    Sandbox made =
        plane()
            .sandboxes
            .create(ControlPlane.OPERATION, ControlPlane.request(Optional.empty()))
            .sandbox();
    Sandbox ready = plane().sandboxes.awaitReady(ControlPlane.OPERATION, made.id(), tenSeconds());
    if (ready.phase() != Phase.READY) {
      throw new AssertionError(
          "the sandbox is not ready but " + ready.phase() + ": " + ready.reason());
    }
    return ready;
  }

  public Call start(Id sandbox, ToolCall.Run run) {
    return plane().gate.start(ControlPlane.OPERATION, sandbox, run, false, List.of());
  }

  public Call start(Id sandbox, String... argv) {
    return start(sandbox, ControlPlane.process(argv));
  }

  /// A started call whose process runs.
  public Call running(Id sandbox, ToolCall.Run run) {
    Call call = start(sandbox, run);
    await(() -> call(call.id()).status() == CallStatus.RUNNING);
    return call(call.id());
  }

  public Call running(Id sandbox, String... argv) {
    return running(sandbox, ControlPlane.process(argv));
  }

  public Call call(Id id) {
    return store.call(id).orElseThrow(() -> new AssertionError("no call " + id));
  }

  public Sandbox sandbox(Id id) {
    return store.sandbox(id).orElseThrow(() -> new AssertionError("no sandbox " + id));
  }

  public Call ended(Id call) {
    Call ended = plane().gate.awaitEnd(ControlPlane.OPERATION, call(call), tenSeconds());
    if (!ended.status().ended()) {
      throw new AssertionError("the call has not ended but is " + ended.status());
    }
    return ended;
  }

  public Sandbox gone(Id sandbox) {
    Sandbox gone = plane().sandboxes.awaitEnd(ControlPlane.OPERATION, sandbox, tenSeconds());
    if (!gone.phase().terminal()) {
      throw new AssertionError("the sandbox has not ended but is " + gone.phase());
    }
    return gone;
  }

  public List<Event> events(Id sandbox) {
    return store.events(sandbox, 0, Integer.MAX_VALUE, Integer.MAX_VALUE);
  }

  public List<Event> events(Id sandbox, String type) {
    return events(sandbox).stream().filter(event -> event.type().equals(type)).toList();
  }

  /// The log in short: `sandbox.phase ready`, `call.ended exited`.
  public List<String> story(Id sandbox) {
    return events(sandbox).stream()
        .map(event -> {
          String detail =
              switch (event.type()) {
                case "sandbox.phase" -> event.data().path("phase").asText();
                case "call.ended" -> event.data().path("status").asText();
                case "call.decided" -> event.data().path("effect").asText();
                default -> "";
              };
          return (event.type() + " " + detail).strip();
        })
        .toList();
  }

  /// What an operation's refusal says.
  public static Problem problem(Runnable operation) {
    try {
      operation.run();
    } catch (ProblemException e) {
      return e.problem();
    }
    throw new AssertionError("it was not refused");
  }

  /// Lets time pass where nothing is to happen.
  public static void pause(Duration time) {
    try {
      Thread.sleep(time);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new AssertionError("interrupted", e);
    }
  }

  public static void awaitLatch(java.util.concurrent.CountDownLatch latch) {
    try {
      if (!latch.await(PATIENCE_MILLIS, java.util.concurrent.TimeUnit.MILLISECONDS)) {
        throw new AssertionError("it did not happen within " + PATIENCE_MILLIS + " ms");
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new AssertionError("interrupted", e);
    }
  }

  public static void await(BooleanSupplier condition) {
    long end = System.nanoTime() + Duration.ofMillis(PATIENCE_MILLIS).toNanos();
    while (!condition.getAsBoolean()) {
      if (System.nanoTime() > end) {
        throw new AssertionError("it did not happen within " + PATIENCE_MILLIS + " ms");
      }
      try {
        Thread.sleep(1);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new AssertionError("interrupted", e);
      }
    }
  }

  private static Duration tenSeconds() {
    return Duration.ofMillis(PATIENCE_MILLIS);
  }
}
