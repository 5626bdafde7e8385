package dev.foredeck.driver.simulated;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallStatus;
import dev.foredeck.core.kit.ControlPlane;
import dev.foredeck.core.kit.FakeGateway;
import dev.foredeck.core.kit.ShiftedClock;
import dev.foredeck.core.kit.TestLimits;
import dev.foredeck.core.kit.World;
import dev.foredeck.core.pool.PoolSetting;
import dev.foredeck.core.pool.PoolSize;
import dev.foredeck.core.pool.WarmSandbox;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.Sandboxes.Provisioned;
import dev.foredeck.core.store.InMemoryStore;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/// Many who ask at the same moment, before a pool that has enough for all of them.
@Timeout(120)
final class SimultaneousClaimsTest {
  private static final int MANY = 300;

  @Test
  void everyOneOfThreeHundredGetsItsOwnAndRunsOnce() throws Exception {
    SimulatedBackend backend = new SimulatedBackend(Pace.real(), 7, 2 * MANY);
    SimulatedDriver driver = new SimulatedDriver(backend);
    InMemoryStore store = new InMemoryStore();
    ShiftedClock clock = new ShiftedClock();
    ControlPlane plane =
        new ControlPlane(
            store,
            driver,
            new FakeGateway(),
            Map.of("default", World.POLICY),
            List.of(
                new PoolSetting(
                    Optional.empty(),
                    Optional.empty(),
                    OptionalInt.empty(),
                    OptionalLong.empty(),
                    OptionalLong.empty(),
                    new PoolSize(MANY, MANY))),
            World.POOL_PACE,
            clock,
            new Ids(clock, new Random(7)),
            TestLimits.with(Map.of("sandboxesPerTenant", MANY, "sandboxesPerOwner", MANY)),
            ControlPlane.IMPATIENT);
    plane.pools.start();
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      World.await(() ->
          store.warmSandboxes("here").stream()
                  .filter(warm -> warm.state() == WarmSandbox.State.WARM)
                  .count()
              == MANY);
      CountDownLatch go = new CountDownLatch(1);
      List<Future<Provisioned>> asked = new ArrayList<>();
      for (int i = 0; i < MANY; i++) {
        asked.add(
            threads.submit(() -> {
              go.await();
              return plane.sandboxes.create(
                  ControlPlane.OPERATION,
                  ControlPlane.request(Optional.of(ControlPlane.process("true"))));
            }));
      }
      go.countDown();
      List<Id> sandboxes = new ArrayList<>();
      List<Call> calls = new ArrayList<>();
      for (Future<Provisioned> future : asked) {
        Provisioned made = future.get();
        assertThat(made.sandbox().phase()).isEqualTo(Phase.READY);
        sandboxes.add(made.sandbox().id());
        calls.add(made.call().orElseThrow());
      }
      assertThat(sandboxes).doesNotHaveDuplicates();
      for (Call call : calls) {
        assertThat(
                plane.gate.awaitEnd(ControlPlane.OPERATION, call, Duration.ofSeconds(60)).status())
            .isEqualTo(CallStatus.EXITED);
        assertThat(backend.timesStarted(call.id().value())).isEqualTo(1);
      }
      assertThat(plane.pools.drain(Duration.ofSeconds(60))).isTrue();
    } finally {
      plane.launcher.close();
      plane.pools.close();
      driver.close();
    }
  }
}
