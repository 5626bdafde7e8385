package dev.foredeck.core.pool;

import static dev.foredeck.core.kit.ControlPlane.ALICE;
import static dev.foredeck.core.kit.ControlPlane.OPERATION;
import static dev.foredeck.core.kit.ControlPlane.process;
import static dev.foredeck.core.kit.World.problem;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Operation;
import dev.foredeck.core.Principal;
import dev.foredeck.core.Problem;
import dev.foredeck.core.Role;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallStatus;
import dev.foredeck.core.kit.ControlPlane;
import dev.foredeck.core.kit.FakeAgent;
import dev.foredeck.core.kit.Fault;
import dev.foredeck.core.kit.World;
import dev.foredeck.core.sandbox.InlineFile;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.sandbox.Sandboxes.Provisioned;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
import dev.foredeck.core.store.InMemoryStore;
import dev.foredeck.core.store.Store.StoreUnavailableException;
import dev.foredeck.protocol.Channel;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
final class WarmPoolsTest {
  private static final Operation OPERATOR =
      new Operation(
          new Principal(ALICE.tenant(), ALICE.key(), "olga", Role.OPERATOR),
          "trace",
          Optional.empty());

  private final World world = new World();

  @AfterEach
  void close() {
    world.close();
  }

  private static PoolSetting setting(int floor, int ceiling) {
    return setting(floor, ceiling, OptionalInt.empty());
  }

  private static PoolSetting setting(int floor, int ceiling, OptionalInt cpuMillis) {
    return new PoolSetting(
        Optional.empty(),
        Optional.empty(),
        cpuMillis,
        OptionalLong.empty(),
        OptionalLong.empty(),
        new PoolSize(floor, ceiling));
  }

  private void begin(PoolSetting... settings) {
    world.pools = List.of(settings);
    world.plane().pools.start();
  }

  private Pools.State pool() {
    return world.plane().pools.list(OPERATOR).getFirst();
  }

  private void awaitWarm(int many) {
    World.await(() -> pool().warm() == many);
  }

  private List<WarmSandbox> rows() {
    return world.store.warmSandboxes("here");
  }

  private Provisioned create(String... argv) {
    return world
        .plane()
        .sandboxes
        .create(OPERATION, ControlPlane.request(Optional.of(process(argv))));
  }

  private List<String> reasons(Id sandbox) {
    return world.events(sandbox, "sandbox.phase").stream()
        .map(event ->
            (event.data().path("phase").asText() + " " + event.data().path("reason").asText())
                .strip())
        .toList();
  }

  private int runs(Id call) {
    return world.backend.everyAgent().stream()
        .map(FakeAgent::runs)
        .mapToInt(runs -> runs.getOrDefault(call.value(), 0))
        .sum();
  }

  // Filling and claiming.

  @Test
  void aClaimTakesOneThatRunsAlreadyAndAReplacementIsMade() {
    begin(setting(1, 4));
    awaitWarm(1);
    WarmSandbox warm = rows().getFirst();
    assertThat(warm.state()).isEqualTo(WarmSandbox.State.WARM);
    assertThat(world.backend.spec(warm.id()).tenant()).isEmpty();
    assertThat(world.backend.spec(warm.id()).labels()).isEmpty();
    assertThat(world.gateway.isOpen(warm.id())).isFalse();

    Provisioned made = create("echo", "hello");
    assertThat(made.sandbox().id()).isEqualTo(warm.id());
    assertThat(made.sandbox().phase()).isEqualTo(Phase.READY);
    assertThat(made.sandbox().bootId()).isEqualTo(warm.bootId());
    Call call = world.ended(made.call().orElseThrow().id());
    assertThat(call.status()).isEqualTo(CallStatus.EXITED);
    world.gone(warm.id());
    assertThat(reasons(warm.id()))
        .containsExactly(
            "requested",
            "ready claimed from the pool",
            "stopping its call has ended",
            "gone its call has ended");
    World.await(() -> pool().warm() >= 1);
    assertThat(pool().tally().claimedWarm()).isEqualTo(1);
    assertThat(pool().tally().launched()).isGreaterThanOrEqualTo(2);
    assertThat(pool().tally().failed()).isZero();
    assertThat(rows()).noneMatch(row -> row.id().equals(warm.id()));
  }

  @Test
  void theWayToTheWebIsOpenBeforeTheFirstCallBegins() {
    begin(setting(1, 1));
    awaitWarm(1);
    List<Boolean> open = new ArrayList<>();
    world.driver.fault(point -> {
      if (point.equals("send.before.StartProcess")) {
        open.add(world.gateway.isOpen(rowsOrSandboxes()));
      }
    });
    Provisioned made = create("true");
    world.ended(made.call().orElseThrow().id());
    assertThat(open).containsExactly(true);
  }

  private Id rowsOrSandboxes() {
    return world.store.liveSandboxes("here").getFirst().id();
  }

  @Test
  void filesAreWrittenBeforeTheFirstCallBegins() {
    begin(setting(1, 1));
    awaitWarm(1);
    WarmSandbox warm = rows().getFirst();
    world.backend.program(
        "show",
        self -> {
          self.write(Channel.STDOUT, Objects.requireNonNull(self.agent().file("in.txt")));
          return 0;
        });
    Provisioned made =
        world
            .plane()
            .sandboxes
            .create(
                OPERATION,
                ControlPlane.request(
                    Optional.of(process("show")),
                    List.of(new InlineFile("in.txt", new byte[] {42})),
                    List.of()));
    assertThat(made.sandbox().id()).isEqualTo(warm.id());
    assertThat(made.sandbox().phase()).isEqualTo(Phase.STARTING);
    Id call = made.call().orElseThrow().id();
    assertThat(world.ended(call).status()).isEqualTo(CallStatus.EXITED);
    assertThat(world.store.output(call, Channel.STDOUT, 0, 10)).containsExactly(42);
    world.gone(warm.id());
    assertThat(reasons(warm.id()))
        .startsWith("requested", "starting claimed from the pool", "ready claimed from the pool");
    assertThat(world.backend.everyAgent().getFirst().runs()).containsKey(call.value());
  }

  @Test
  void anEmptyPoolOrNoneIsTheColdWayAndTheLogSaysWhy() {
    begin(setting(0, 4));
    Provisioned empty = create("true");
    assertThat(world.gone(empty.sandbox().id()).phase()).isEqualTo(Phase.GONE);
    assertThat(reasons(empty.sandbox().id()).getFirst())
        .startsWith("requested the pool of host-")
        .endsWith(" is empty");
    assertThat(pool().tally().claimedCold()).isEqualTo(1);
    assertThat(pool().tally().claimedWarm()).isZero();

    Sandbox other =
        world
            .plane()
            .sandboxes
            .create(OPERATION, setting(1, 1, OptionalInt.of(500)).request())
            .sandbox();
    assertThat(reasons(other.id()).getFirst()).startsWith("requested no pool for template host");
    // The demand alone fills a pool whose floor is nothing.
    World.await(() -> pool().warm() == 1);
    assertThat(pool().target()).isEqualTo(1);
  }

  @Test
  void theTargetFollowsTheDemandUpAndDown() {
    begin(setting(1, 3));
    awaitWarm(1);
    for (int i = 0; i < 12; i++) {
      create("true");
    }
    World.await(() -> pool().target() == 3 && pool().warm() == 3);
    assertThat(pool().claimsPerMinute()).isGreaterThan(4);
    world.clock.advance(Duration.ofMinutes(10));
    World.await(() -> pool().warm() == 1 && rows().size() == 1);
    World.await(() -> world.backend.states().size() == 1);
  }

  @Test
  void aDeniedCallCostsNoWarmSandbox() {
    begin(setting(1, 1));
    awaitWarm(1);
    Id warm = rows().getFirst().id();
    assertThat(problem(() -> create("rm", "-rf", "/"))).isInstanceOf(Problem.Denied.class);
    assertThat(rows().getFirst().id()).isEqualTo(warm);
    assertThat(create("true").sandbox().id()).isEqualTo(warm);
  }

  @Test
  void aRefusedOneGoesBackToThePool() {
    world.limits = World.limits(Duration.ofSeconds(1));
    begin(setting(1, 1));
    create("sleep");
    create("sleep");
    awaitWarm(1);
    Id warm = rows().getFirst().id();
    assertThat(problem(() -> create("true"))).isInstanceOf(Problem.Capacity.class);
    awaitWarm(1);
    assertThat(rows().getFirst().id()).isEqualTo(warm);
  }

  @Test
  void aRepeatUnderTheSameKeyGetsTheSameSandbox() {
    begin(setting(2, 2));
    awaitWarm(2);
    Operation keyed = ControlPlane.keyed("POST /v1/sandboxes", "k", "hash");
    var request = ControlPlane.request(Optional.of(process("sleep")));
    Provisioned first = world.plane().sandboxes.create(keyed, request);
    Provisioned again = world.plane().sandboxes.create(keyed, request);
    assertThat(again.sandbox().id()).isEqualTo(first.sandbox().id());
    assertThat(again.call().orElseThrow().id()).isEqualTo(first.call().orElseThrow().id());
  }

  @Test
  void oneThatSomebodyElseTookIsPassedOver() {
    begin(setting(2, 2));
    awaitWarm(2);
    Id first = rows().getFirst().id();
    CommitResult _ =
        world.store.commit(Commit.of(first, new Change.TakeWarm(WarmSandbox.State.WARM)));
    Provisioned made = create("true");
    assertThat(made.sandbox().id()).isNotEqualTo(first);
    assertThat(world.ended(made.call().orElseThrow().id()).status()).isEqualTo(CallStatus.EXITED);
  }

  @Test
  void everyOneOfManyAtOnceGetsItsOwn() throws Exception {
    Limits d = Limits.DEFAULT;
    world.limits = d;
    int many = 100;
    begin(setting(40, 40));
    awaitWarm(40);
    List<Future<Provisioned>> futures = new ArrayList<>();
    CountDownLatch go = new CountDownLatch(1);
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      for (int i = 0; i < many; i++) {
        futures.add(
            threads.submit(() -> {
              go.await();
              return create("true");
            }));
      }
      go.countDown();
      List<Id> made = new ArrayList<>();
      int claimed = 0;
      for (Future<Provisioned> future : futures) {
        Provisioned provisioned = future.get();
        made.add(provisioned.sandbox().id());
        claimed += provisioned.sandbox().phase() == Phase.READY ? 1 : 0;
        Id call = provisioned.call().orElseThrow().id();
        assertThat(world.ended(call).status()).isEqualTo(CallStatus.EXITED);
        assertThat(runs(call)).isEqualTo(1);
      }
      assertThat(made).doesNotHaveDuplicates();
      assertThat(claimed).isGreaterThanOrEqualTo(40);
    }
  }

  // What dies, fails, or is full.

  @Test
  void oneThatDiedWhileItWasWarmIsReplaced() {
    begin(setting(1, 1));
    awaitWarm(1);
    Id dead = rows().getFirst().id();
    world.backend.kill(dead);
    World.await(() -> pool().warm() == 1 && !rows().getFirst().id().equals(dead));
    assertThat(pool().lastFailure().orElseThrow().reason()).contains("exit status 137");
    World.await(() -> world.backend.states().size() == 1);
  }

  @Test
  void aClaimThatMeetsADeadOneIsNotNoticedAndRunsOnce() {
    for (boolean files : new boolean[] {false, true}) {
      try (World other = new World()) {
        other.pools = List.of(setting(1, 1));
        other.plane().pools.start();
        World.await(() -> other.plane().pools.list(OPERATOR).getFirst().warm() == 1);
        Id dead = other.store.warmSandboxes("here").getFirst().id();
        other.driver.fault(point -> {
          if (point.equals("inspect") && other.store.warmSandbox(dead).isPresent()) {
            throw new DriverException.Failed("nobody sees it in time");
          }
        });
        other.backend.kill(dead);
        Provisioned made =
            other
                .plane()
                .sandboxes
                .create(
                    OPERATION,
                    ControlPlane.request(
                        Optional.of(process("echo", "hello")),
                        files ? List.of(new InlineFile("a", new byte[3])) : List.of(),
                        List.of()));
        assertThat(made.sandbox().id()).isEqualTo(dead);
        Call call = other.ended(made.call().orElseThrow().id());
        assertThat(call.status()).as("%s", call.result()).isEqualTo(CallStatus.EXITED);
        assertThat(other.gone(dead).phase()).isEqualTo(Phase.GONE);
        assertThat(
                other.backend.everyAgent().stream()
                    .mapToInt(agent -> agent.runs().getOrDefault(call.id().value(), 0))
                    .sum())
            .isEqualTo(1);
        assertThat(
                other.events(dead, "sandbox.phase").stream()
                    .map(event -> event.data().path("reason").asText()))
            .anyMatch(reason -> reason.startsWith("launched anew: "));
      }
    }
  }

  @Test
  void aClaimWithoutACallThatMeetsADeadOneBecomesReady() {
    begin(setting(1, 1));
    awaitWarm(1);
    Id dead = rows().getFirst().id();
    CountDownLatch claimed = new CountDownLatch(1);
    world.driver.fault(point -> {
      if (point.equals("inspect") && claimed.getCount() > 0) {
        throw new DriverException.Failed("the backend is busy");
      }
    });
    world.backend.kill(dead);
    Sandbox made =
        world.plane().sandboxes.create(OPERATION, ControlPlane.request(Optional.empty())).sandbox();
    assertThat(made.id()).isEqualTo(dead);
    claimed.countDown();
    World.await(() ->
        reasons(dead).stream().anyMatch(reason -> reason.startsWith("starting launched anew")));
    World.await(() -> world.sandbox(dead).phase() == Phase.READY);
    assertThat(world.ended(world.start(dead, "true").id()).status()).isEqualTo(CallStatus.EXITED);
  }

  @Test
  void oneThatDiesAfterItWasTouchedIsLost() {
    begin(setting(1, 1));
    awaitWarm(1);
    Provisioned made = create("sleep");
    Id call = made.call().orElseThrow().id();
    World.await(() -> world.call(call).status() == CallStatus.RUNNING);
    world.backend.kill(made.sandbox().id());
    assertThat(world.ended(call).status()).isEqualTo(CallStatus.LOST);
    assertThat(world.gone(made.sandbox().id()).phase().terminal()).isTrue();
    assertThat(runs(call)).isEqualTo(1);
  }

  @Test
  void aLaunchThatFailsIsTriedAgainAfterAPauseAndShown() {
    AtomicInteger launches = new AtomicInteger();
    world.driver.fault(point -> {
      if (point.equals("launch.half")) {
        launches.incrementAndGet();
        throw new DriverException.Refused("no such isolation");
      }
    });
    begin(setting(1, 1));
    World.await(() -> pool().lastFailure().isPresent() && rows().isEmpty());
    assertThat(pool().lastFailure().orElseThrow().reason()).isEqualTo("no such isolation");
    assertThat(pool().tally().failed()).isEqualTo(1);
    assertThat(world.backend.states()).isEmpty();
    World.pause(Duration.ofMillis(100));
    assertThat(launches).hasValue(1);
    world.driver.fault(Fault.NONE);
    world.clock.advance(Duration.ofSeconds(2));
    awaitWarm(1);
  }

  @Test
  void aWarmOneMakesRoomForOneThatSomebodyWaitsFor() {
    begin(setting(2, 2));
    awaitWarm(2);
    world.driver.fault(point -> {
      if (point.equals("launch.before") && world.backend.states().size() >= 2) {
        throw new DriverException.Full("two places");
      }
    });
    Sandbox cold =
        world
            .plane()
            .sandboxes
            .create(OPERATION, setting(1, 1, OptionalInt.of(500)).request())
            .sandbox();
    World.await(() -> world.sandbox(cold.id()).phase() == Phase.READY);
    assertThat(pool().warm()).isEqualTo(1);
    // And takes no place again for a while.
    World.pause(Duration.ofMillis(100));
    assertThat(rows()).hasSize(1);
    assertThat(world.backend.states()).hasSize(2);
    world.driver.fault(Fault.NONE);
    world.clock.advance(Duration.ofMinutes(1));
    awaitWarm(2);
  }

  @Test
  void aFullBackendWithoutWarmOnesRefusesAsEver() {
    world.driver.fault(point -> {
      if (point.equals("launch.before")) {
        throw new DriverException.Full("no place");
      }
    });
    begin(setting(1, 1));
    Sandbox gone = world.gone(create("true").sandbox().id());
    assertThat(gone.phase()).isEqualTo(Phase.FAILED);
    assertThat(gone.reason()).isEqualTo("no place");
  }

  @Test
  void oneThatCannotBeDestroyedYetIsNotForgotten() {
    begin(setting(1, 1));
    awaitWarm(1);
    AtomicInteger destroys = new AtomicInteger();
    world.driver.fault(point -> {
      if (point.equals("destroy.before") && destroys.incrementAndGet() < 4) {
        throw new DriverException.Failed("the mount is busy");
      }
    });
    assertThat(world.plane().pools.drain(Duration.ofSeconds(10))).isTrue();
    assertThat(destroys.get()).isGreaterThanOrEqualTo(4);
    assertThat(world.backend.states()).isEmpty();
  }

  @Test
  void anOldOneIsReplacedBeforeItGoes() {
    begin(setting(1, 1));
    awaitWarm(1);
    Id old = rows().getFirst().id();
    world.clock.advance(Duration.ofMinutes(61));
    World.await(() -> rows().size() == 1 && !rows().getFirst().id().equals(old));
    awaitWarm(1);
    World.await(() -> world.backend.states().size() == 1);
  }

  @Test
  void theBackendsDeadlineIsBehindEveryTimeToLiveOfAClaim() {
    begin(setting(1, 1));
    awaitWarm(1);
    WarmSandbox warm = rows().getFirst();
    // The policy's lifetime is 2 hours, and an hour old is the oldest that is kept with a young
    // one.
    assertThat(world.backend.spec(warm.id()).expiresAt())
        .isEqualTo(warm.createdAt().plus(Duration.ofHours(4)))
        .isEqualTo(warm.expiresAt());
  }

  // Restarts.

  @Test
  void whatIsWarmOutlivesTheControlPlane() {
    begin(setting(2, 2));
    awaitWarm(2);
    List<WarmSandbox> before = rows();
    world.restart();
    world.plane().pools.start();
    awaitWarm(2);
    assertThat(rows()).isEqualTo(before);
    assertThat(before).extracting(WarmSandbox::id).contains(create("true").sandbox().id());
  }

  @Test
  void oneThatDiedMeanwhileIsNotTakenUp() {
    begin(setting(1, 1));
    awaitWarm(1);
    Id dead = rows().getFirst().id();
    world.close();
    world.backend.kill(dead);
    world.plane().pools.start();
    awaitWarm(1);
    assertThat(rows().getFirst().id()).isNotEqualTo(dead);
  }

  @Test
  void whatIsNoLongerConfiguredIsDrained() {
    begin(setting(2, 2));
    awaitWarm(2);
    for (List<PoolSetting> next :
        List.of(List.of(setting(1, 1, OptionalInt.of(500))), List.<PoolSetting>of())) {
      world.close();
      world.pools = next;
      world.plane().pools.start();
      World.await(() ->
          rows().size() == next.size()
              && rows().stream().allMatch(row -> row.resources().cpuMillis() == 500));
      World.await(() -> world.backend.states().size() == next.size());
    }
  }

  @Test
  void whatAPolicyThatChangedNoLongerMeansIsDrained() {
    begin(setting(1, 1));
    awaitWarm(1);
    Id before = rows().getFirst().id();
    world.close();
    world.policies = Map.of("default", World.POLICY.replace("pids: 128", "pids: 100"));
    world.plane().pools.start();
    awaitWarm(1);
    World.await(() -> rows().size() == 1);
    assertThat(rows().getFirst().id()).isNotEqualTo(before);
    assertThat(rows().getFirst().resources().pids()).isEqualTo(100);
    // Rules that compile to nothing in the sandbox change nothing.
    Id now = rows().getFirst().id();
    world.close();
    world.policies =
        Map.of(
            "default",
            World.POLICY
                .replace("pids: 128", "pids: 100")
                .replace("hosts: [pypi.org", "hosts: [example.com, pypi.org"));
    world.plane().pools.start();
    awaitWarm(1);
    assertThat(rows().getFirst().id()).isEqualTo(now);
  }

  @Test
  void theReaperKnowsWarmSandboxes() throws Exception {
    begin(setting(2, 2));
    awaitWarm(2);
    assertThat(world.plane().reaper.sweep()).isZero();
    assertThat(world.backend.states()).hasSize(2);
    // One whose row is gone is an orphan like any other.
    Id orphan = rows().getFirst().id();
    world.plane().pools.close();
    CommitResult _ =
        world.store.commit(Commit.of(orphan, new Change.TakeWarm(WarmSandbox.State.WARM)));
    assertThat(world.plane().reaper.sweep()).isEqualTo(1);
  }

  @Test
  void aClaimWhoseOutcomeIsUnknownIsNeitherLostNorHandedOutTwice() {
    begin(setting(1, 1));
    awaitWarm(1);
    Id warm = rows().getFirst().id();
    // The commit is durable and the database goes away before it says so.
    AtomicInteger claims = new AtomicInteger();
    world.store.hook(
        new InMemoryStore.CommitHook() {
          @Override
          public void after(Commit commit, CommitResult result) {
            if (commit.changes().stream().anyMatch(Change.CreateSandbox.class::isInstance)
                && claims.incrementAndGet() == 1) {
              throw new StoreUnavailableException("gone", new IllegalStateException());
            }
          }
        });
    assertThatThrownBy(() -> create("sleep")).isInstanceOf(StoreUnavailableException.class);
    Id other = create("sleep").sandbox().id();
    assertThat(other).isNotEqualTo(warm);
    world.plane().launcher.adopt();
    World.await(() -> world.store.liveCalls(warm).getFirst().status() == CallStatus.RUNNING);
    assertThat(runs(world.store.liveCalls(warm).getFirst().id())).isEqualTo(1);
  }

  // Looking in.

  @Test
  void poolsAreShownToOperatorsOnly() {
    begin(setting(1, 4));
    awaitWarm(1);
    Pools.State state = pool();
    assertThat(state.key().template()).isEqualTo("host");
    assertThat(state.policy()).startsWith("default@");
    assertThat(state.size()).isEqualTo(new PoolSize(1, 4));
    assertThat(state.target()).isEqualTo(1);
    assertThat(state.warming()).isZero();
    assertThat(state.lastFailure()).isEmpty();
    assertThat(problem(() -> world.plane().pools.list(OPERATION)))
        .isInstanceOf(Problem.Forbidden.class);
  }

  @Test
  void aSettingThatNoRequestCouldMeetIsRefused() {
    for (Map.Entry<PoolSetting, String> wrong :
        Map.of(
                setting(1, 1, OptionalInt.of(64_000)), "more than what policy",
                setting(1, 1, OptionalInt.of(1)), "too few",
                named("vm", ""), "no template 'vm'",
                named("", "strict"), "no policy 'strict'")
            .entrySet()) {
      world.pools = List.of(wrong.getKey());
      assertThatThrownBy(world::plane)
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining(wrong.getValue());
    }
    world.pools = List.of(setting(1, 1), setting(2, 2));
    assertThatThrownBy(world::plane).hasMessageContaining("two pools are the same");
    world.pools = List.of();
  }

  private static PoolSetting named(String template, String policy) {
    return new PoolSetting(
        Optional.of(template).filter(t -> !t.isEmpty()),
        Optional.of(policy).filter(p -> !p.isEmpty()),
        OptionalInt.empty(),
        OptionalLong.empty(),
        OptionalLong.empty(),
        new PoolSize(1, 1));
  }
}
