package dev.foredeck.core.sandbox;

import static dev.foredeck.core.kit.ControlPlane.OPERATION;
import static dev.foredeck.core.kit.ControlPlane.process;
import static dev.foredeck.core.kit.World.problem;
import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.egress.EgressGateway.Verdict;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallStatus;
import dev.foredeck.core.gate.Calls;
import dev.foredeck.core.gate.ToolCall;
import dev.foredeck.core.kit.ControlPlane;
import dev.foredeck.core.kit.Fault;
import dev.foredeck.core.kit.World;
import dev.foredeck.core.sandbox.Sandboxes.Provisioned;
import dev.foredeck.core.store.Event;
import dev.foredeck.policy.Boundary;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
final class LauncherTest {
  private final World world = new World();

  @AfterEach
  void close() {
    world.close();
  }

  private Sandboxes sandboxes() {
    return world.plane().sandboxes;
  }

  private Provisioned createWithRun() {
    return sandboxes().create(OPERATION, ControlPlane.request(Optional.of(process("true"))));
  }

  private static Fault failing(String point, DriverException failure) {
    return at -> {
      if (at.equals(point)) {
        throw failure;
      }
    };
  }

  @Test
  void aLaunchThatFailsEndsItsCallAndNothingRemains() {
    List<DriverException> failures =
        List.of(
            new DriverException.Refused("no such isolation"),
            new DriverException.Full("the host is full"),
            new DriverException.Failed("runc failed"));
    for (DriverException failure : failures) {
      world.driver.fault(failing("launch.half", failure));
      Provisioned made = createWithRun();
      Sandbox gone = world.gone(made.sandbox().id());
      assertThat(gone.phase()).isEqualTo(Phase.FAILED);
      assertThat(gone.reason()).isEqualTo(failure.getMessage());
      Call call = world.call(made.call().orElseThrow().id());
      assertThat(call.status()).isEqualTo(CallStatus.FAILED);
      assertThat(call.result().orElseThrow().reason()).contains(failure.getMessage());
      assertThat(world.backend.states()).isEmpty();
    }
  }

  @Test
  void aSandboxWhoseLaunchFailedIsNeverLaunchedAgainAlsoWhereItsRemovalFails() {
    AtomicInteger launches = new AtomicInteger();
    AtomicInteger destroys = new AtomicInteger();
    world.driver.fault(point -> {
      if (point.equals("launch.half") && launches.incrementAndGet() == 1) {
        throw new DriverException.Failed("runc failed");
      }
      if (point.equals("destroy.before") && destroys.incrementAndGet() < 4) {
        throw new DriverException.Failed("the mount is busy");
      }
    });
    Provisioned made = createWithRun();
    assertThat(world.gone(made.sandbox().id()).phase()).isEqualTo(Phase.FAILED);
    assertThat(launches).hasValue(1);
    assertThat(world.backend.states()).isEmpty();
  }

  @Test
  void aFailureIsRememberedOverARestart() {
    world.driver.fault(point -> {
      if (point.equals("launch.half")) {
        throw new DriverException.Refused("no such isolation");
      }
      if (point.equals("destroy.before")) {
        throw new DriverException.Failed("the mount is busy");
      }
    });
    Provisioned made = createWithRun();
    World.await(() -> world.call(made.call().orElseThrow().id()).status() == CallStatus.FAILED);
    world.close();
    world.driver.fault(Fault.NONE);
    world.restart();
    Sandbox gone = world.gone(made.sandbox().id());
    assertThat(gone.phase()).isEqualTo(Phase.FAILED);
    assertThat(gone.reason()).isEqualTo("no such isolation");
  }

  @Test
  void anInlineFileThatCannotBeWrittenFailsTheSandboxWithTheReason() {
    Sandbox made =
        sandboxes()
            .create(
                OPERATION,
                ControlPlane.request(
                    Optional.of(process("true")),
                    List.of(new InlineFile("../x", new byte[1])),
                    List.of()))
            .sandbox();
    assertThat(world.gone(made.id()).reason()).contains("'../x' was not written");
    assertThat(world.store.files(made.id())).isEmpty();
  }

  @Test
  void anEgressSocketThatCannotBeOpenedFailsTheLaunch() {
    world.gateway.failNext(1);
    assertThat(world.gone(createWithRun().sandbox().id()).reason()).contains("address is in use");
  }

  @Test
  void aSandboxDestroyedWhileItIsLaunchedIsNotLeft() throws Exception {
    CountDownLatch launching = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    world.driver.fault(point -> {
      if (point.equals("launch.after")) {
        launching.countDown();
        World.awaitLatch(go);
      }
    });
    Provisioned made = createWithRun();
    launching.await();
    sandboxes().destroy(OPERATION, made.sandbox().id());
    go.countDown();
    assertThat(world.gone(made.sandbox().id()).phase()).isEqualTo(Phase.GONE);
    assertThat(world.call(made.call().orElseThrow().id()).status()).isEqualTo(CallStatus.CANCELLED);
    assertThat(world.backend.states()).isEmpty();
  }

  @Test
  void theTimeToLiveEndsASandboxAndItsCalls() {
    Sandbox sandbox = world.ready();
    Call call =
        world.running(
            sandbox.id(),
            new ToolCall.ProcessStart(
                List.of("sleep"), "/workspace", Map.of(), Optional.of(Duration.ofHours(1)), false));
    world.clock.advance(Duration.ofMinutes(16));
    Sandbox gone = world.gone(sandbox.id());
    assertThat(gone.phase()).isEqualTo(Phase.GONE);
    assertThat(gone.reason()).isEqualTo("its time to live is over");
    assertThat(world.call(call.id()).status()).isEqualTo(CallStatus.CANCELLED);
    assertThat(world.backend.states()).isEmpty();
  }

  @Test
  void theTimeToLiveCountsWhileTheControlPlaneIsDown() {
    Sandbox sandbox = world.ready();
    world.running(sandbox.id(), "sleep");
    world.close();
    world.clock.advance(Duration.ofMinutes(16));
    world.restart();
    assertThat(world.gone(sandbox.id()).phase()).isEqualTo(Phase.GONE);
    assertThat(world.backend.states()).isEmpty();
  }

  @Test
  void aRestartAdoptsSandboxesAndTheirProcesses() {
    Sandbox sandbox = world.ready();
    world.backend.program(
        "talks",
        self -> {
          self.print("before ");
          self.awaitSignal(10);
          self.print("after");
          return 0;
        });
    Call call = world.running(sandbox.id(), "talks");
    World.await(() -> world.call(call.id()).stdoutBytes() == 7);
    ControlPlane after = world.restart();
    World.await(() -> world.gateway.isOpen(sandbox.id()));
    after.gate.signal(OPERATION, call.id(), "USR1");
    assertThat(world.ended(call.id()).status()).isEqualTo(CallStatus.EXITED);
    assertThat(
            after
                .gate
                .output(OPERATION, call.id(), dev.foredeck.protocol.Channel.STDOUT, 0, 100)
                .bytes())
        .asString()
        .isEqualTo("before after");
    assertThat(world.backend.agent(sandbox.id()).runs()).containsEntry(call.id().value(), 1);
  }

  @Test
  void aFileCallOfTheControlPlaneBeforeIsLostAndOneOfThisOneIsNot() {
    Sandbox sandbox = world.ready();
    world.backend.agent(sandbox.id()).write("x", new byte[100_000]);
    Id old = world.plane().gate.readFile(OPERATION, sandbox.id(), "x").call();
    world.close();
    world.clock.advance(Duration.ofMillis(5));
    // Begun before the sandbox is adopted.
    Calls.Download fresh = world.plane().gate.readFile(OPERATION, sandbox.id(), "x");
    world.plane().launcher.adopt();
    World.await(() -> world.call(old).status() == CallStatus.LOST);
    assertThat(world.call(fresh.call()).status()).isEqualTo(CallStatus.PENDING);
  }

  @Test
  void aDatabaseThatIsAwayForAWhileHoldsUpAndLosesNothing() {
    Sandbox sandbox = world.ready();
    world.backend.program(
        "talks",
        self -> {
          self.awaitSignal(10);
          self.print("hello");
          return 0;
        });
    Call call = world.running(sandbox.id(), "talks");
    world.store.unavailable(true);
    world.backend.agent(sandbox.id()).process(call.id().value()).signals();
    World.pause(Duration.ofMillis(50));
    world.store.unavailable(false);
    world.plane().gate.signal(OPERATION, call.id(), "USR1");
    assertThat(world.ended(call.id()).stdoutBytes()).isEqualTo(5);
    assertThat(world.sandbox(sandbox.id()).phase()).isEqualTo(Phase.READY);
  }

  @Test
  void aBackendThatDoesNotAnswerForAWhileFailsNothing() {
    Sandbox sandbox = world.ready();
    world.driver.fault(failing("inspect", new DriverException.Failed("timed out")));
    World.pause(Duration.ofMillis(100));
    assertThat(world.sandbox(sandbox.id()).phase()).isEqualTo(Phase.READY);
    world.driver.fault(Fault.NONE);
    assertThat(world.ended(world.start(sandbox.id(), "true").id()).status())
        .isEqualTo(CallStatus.EXITED);
  }

  // Egress.

  private static Flow flow(String call) {
    return new Flow(
        call, "pypi.org", 443, "1.2.3.4", "CONNECT", "", "allow", "pypi", "", false, 10, 20, 30);
  }

  @Test
  void egressIsDecidedByThePolicyAndFlowsAreJoinedToTheirCall() {
    Sandbox sandbox = world.ready();
    Sandbox other = world.ready();
    Call call = world.running(sandbox.id(), "sleep");
    assertThat(world.gateway.decide(sandbox.id(), "pypi.org", 443).rule()).isEqualTo("pypi");
    assertThat(world.gateway.decide(sandbox.id(), "evil.com", 443).allowed()).isFalse();
    assertThat(world.gateway.decide(sandbox.id(), "evil.com", 443).rule()).isEqualTo("default");
    world.gateway.record(sandbox.id(), flow(call.id().value()));
    world.gateway.record(sandbox.id(), flow("not an id"));
    world.gateway.record(other.id(), flow(call.id().value()));
    World.await(() -> world.events(sandbox.id(), "egress.flow").size() == 2);
    World.await(() -> world.events(other.id(), "egress.flow").size() == 1);
    assertThat(world.events(sandbox.id(), "egress.flow"))
        .extracting(Event::call)
        .containsExactly(Optional.of(call.id()), Optional.empty());
    assertThat(world.events(other.id(), "egress.flow").getFirst().call()).isEmpty();
  }

  @Test
  void aShadowPolicysEgressSaysThatItWouldHaveDenied() {
    world.policies =
        Map.of(
            "default",
            World.POLICY.replace(
                "metadata: {name: default}", "metadata: {name: default}\nmode: shadow"));
    Sandbox sandbox = world.ready();
    Verdict denied = world.gateway.decide(sandbox.id(), "evil.com", 443);
    assertThat(denied.allowed()).isTrue();
    assertThat(denied.shadow()).isTrue();
    assertThat(world.gateway.decide(sandbox.id(), "pypi.org", 443).shadow()).isFalse();
  }

  @Test
  void aFlowUnderWayWhenTheControlPlaneStopsIsInTheLog() {
    Sandbox sandbox = world.ready();
    world.gateway.begin(sandbox.id(), flow(""));
    world.close();
    assertThat(world.events(sandbox.id(), "egress.flow")).hasSize(1);
    world.restart();
    World.await(() -> world.gateway.isOpen(sandbox.id()));
  }

  // Reaper.

  @Test
  void theReaperDestroysOrphansOneByOneAndSparesTheLiving() throws Exception {
    Sandbox living = world.ready();
    for (String id : List.of("sbx0000000000000001", "sbx0000000000000002")) {
      world.backend.orphan(
          new LaunchSpec(
              new Id(id),
              ControlPlane.TENANT,
              "host",
              new Resources(1_000, 1 << 30, 1 << 30, 64),
              Boundary.NONE,
              "token",
              Map.of(),
              Instant.MAX));
    }
    AtomicInteger destroys = new AtomicInteger();
    world.driver.fault(point -> {
      if (point.equals("destroy.before") && destroys.incrementAndGet() == 1) {
        throw new DriverException.Failed("the mount is busy");
      }
    });
    assertThat(world.plane().reaper.sweep()).isEqualTo(1);
    assertThat(world.plane().reaper.sweep()).isEqualTo(1);
    assertThat(world.plane().reaper.sweep()).isZero();
    assertThat(world.backend.states()).hasSize(1);
    assertThat(world.sandbox(living.id()).phase()).isEqualTo(Phase.READY);
  }

  @Test
  void theReaperFindsGhosts() throws Exception {
    Sandbox sandbox = world.ready();
    world.close();
    world.driver.destroy(sandbox.id(), Duration.ofSeconds(1));
    assertThat(world.plane().launcher.tends(sandbox.id())).isFalse();
    assertThat(world.plane().reaper.sweep()).isZero();
    Sandbox gone = world.gone(sandbox.id());
    assertThat(gone.phase()).isEqualTo(Phase.FAILED);
    assertThat(gone.reason()).contains("it is not there");
  }

  @Test
  void aSandboxWhosePolicyIsLostIsGivenUpAndNotRunUnderAnother() {
    Sandbox made =
        new Sandbox(
            new Id("sbx0000000000000003"),
            ControlPlane.TENANT,
            "here",
            "host",
            new Resources(1_000, 1 << 30, 1 << 30, 64),
            "default@000000000000",
            Map.of(),
            Map.of(),
            Optional.empty(),
            false,
            Phase.REQUESTED,
            "",
            "",
            world.clock.instant(),
            world.clock.instant().plusSeconds(60),
            Optional.empty());
    dev.foredeck.core.store.CommitResult _ =
        world.store.commit(
            dev.foredeck.core.store.Commit.of(
                made.id(),
                new dev.foredeck.core.store.Change.CreateSandbox(made, List.of(), 10, 10)));
    world.plane().launcher.adopt();
    assertThat(world.gone(made.id()).phase()).isEqualTo(Phase.FAILED);
    assertThat(world.backend.states()).isEmpty();
    assertThat(problem(() -> world.start(made.id(), "true")).code()).isEqualTo("sandbox-gone");
  }
}
