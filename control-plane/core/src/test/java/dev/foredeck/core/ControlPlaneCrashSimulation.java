package dev.foredeck.core;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.feed.Feeds;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallStatus;
import dev.foredeck.core.gate.ToolCall;
import dev.foredeck.core.kit.ControlPlane;
import dev.foredeck.core.kit.FakeAgent;
import dev.foredeck.core.kit.FakeBackend;
import dev.foredeck.core.kit.FakeGateway;
import dev.foredeck.core.kit.MortalDriver;
import dev.foredeck.core.kit.MortalStore;
import dev.foredeck.core.kit.Mortality;
import dev.foredeck.core.kit.Mortality.Crash;
import dev.foredeck.core.kit.Mortality.Fate;
import dev.foredeck.core.kit.ShiftedClock;
import dev.foredeck.core.pool.PoolPace;
import dev.foredeck.core.pool.PoolSetting;
import dev.foredeck.core.pool.PoolSize;
import dev.foredeck.core.pool.WarmSandbox;
import dev.foredeck.core.sandbox.InlineFile;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.ProvisionRequest;
import dev.foredeck.core.sandbox.Sandboxes.Provisioned;
import dev.foredeck.core.store.Event;
import dev.foredeck.core.store.InMemoryStore;
import dev.foredeck.protocol.Channel;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/// Kills the control plane at seeded points, one to four times a run, while warm pools are filled,
/// claimed from and drained, sandboxes are launched, print random bytes on both channels and are
/// destroyed, and asserts after each run that nothing was lost, repeated or left.
///
/// Store and backend survive a crash; of the control plane only what it has committed or asked the
/// backend for does. A seed fixes what is done and where it is killed; the order of threads in
/// between is the machine's.
///
/// `-Dforedeck.simulation.seeds=20000` runs more, `-Dforedeck.simulation.seed=17` runs one.
final class ControlPlaneCrashSimulation {
  private static final int SEEDS = Integer.getInteger("foredeck.simulation.seeds", 1_000);
  private static final int AT_ONCE = 8;
  private static final long RUN_SECONDS = 60;

  /// Where control planes die: each of these is chosen by many seeds.
  private static final List<String> POINTS =
      List.of(
          "commit.before",
          "commit.after",
          "connect",
          "inspect",
          "launch.before",
          "launch.half",
          "launch.after",
          "send.before.WriteFile",
          "send.after.WriteFile",
          "send.before.ChunksEnd",
          "send.after.ChunksEnd",
          "send.before.StartProcess",
          "send.after.StartProcess",
          "send.before.Ack",
          "send.after.Ack",
          "send.before.ReadFile",
          "send.after.ReadFile",
          "send.before.Release",
          "send.after.Release",
          "destroy.before",
          "destroy.half",
          "destroy.after",
          "egress.open",
          "commit.before.AddWarm",
          "commit.after.AddWarm",
          "commit.before.MoveWarm",
          "commit.after.MoveWarm",
          "commit.before.Claim",
          "commit.after.Claim",
          "commit.before.TakeWarm",
          "commit.after.TakeWarm");

  private static final PoolPace POOL_PACE =
      new PoolPace(
          Duration.ofHours(1),
          Duration.ofMinutes(1),
          Duration.ofSeconds(30),
          Duration.ofMillis(20),
          Duration.ofMillis(1),
          Duration.ofMillis(1),
          Duration.ofMillis(20),
          Duration.ofMillis(20));

  /// Sandboxes that were claimed from a pool, over all runs.
  private static final AtomicInteger CLAIMED = new AtomicInteger();

  private static final String POLICY =
      """
      apiVersion: foredeck/v1
      kind: SandboxPolicy
      metadata: {name: default}
      rules:
        - {id: work, effect: allow, action: process.start}
      """;

  /// Long where a slow machine could make a difference, short where the simulation would wait.
  private static final Patience PATIENCE =
      new Patience(
          Duration.ofSeconds(30),
          Duration.ofSeconds(30),
          Duration.ofSeconds(30),
          Duration.ofSeconds(30),
          Duration.ofSeconds(30),
          Duration.ofSeconds(30),
          Duration.ofSeconds(30),
          Duration.ofSeconds(30),
          Duration.ofSeconds(30),
          Duration.ofSeconds(30),
          Duration.ofMillis(20),
          Duration.ofMillis(1),
          Duration.ofMillis(20),
          Duration.ofSeconds(30));

  private static final Map<String, Boolean> MET = Mortality.points();
  private static Thread.@org.jspecify.annotations.Nullable UncaughtExceptionHandler before;

  @BeforeAll
  static void theDeadAreSilent() {
    before = Thread.getDefaultUncaughtExceptionHandler();
    Thread.setDefaultUncaughtExceptionHandler((thread, error) -> {
      if (!(error instanceof Crash)) {
        System.err.println("uncaught in " + thread + ": " + error);
        error.printStackTrace();
      }
    });
  }

  @AfterAll
  static void restore() {
    Thread.setDefaultUncaughtExceptionHandler(before);
  }

  @Test
  void nothingIsLostRepeatedOrLeft() throws Exception {
    Integer one = Integer.getInteger("foredeck.simulation.seed");
    if (one != null) {
      run(one);
      return;
    }
    Semaphore places = new Semaphore(AT_ONCE);
    List<Future<?>> runs = new ArrayList<>();
    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      for (int i = 0; i < SEEDS; i++) {
        int seed = i;
        runs.add(
            threads.submit(() -> {
              places.acquire();
              try {
                run(seed);
              } finally {
                places.release();
              }
              return null;
            }));
      }
      for (Future<?> run : runs) {
        run.get();
      }
    }
    if (SEEDS >= 500) {
      assertThat(MET.keySet()).as("points at which control planes died").containsAll(POINTS);
      assertThat(CLAIMED.get()).as("sandboxes that were claimed").isGreaterThan(SEEDS / 4);
    }
  }

  private static void run(int seed) throws Exception {
    Run run = new Run(seed);
    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      Future<?> whole =
          threads.submit(() -> {
            run.whole();
            return null;
          });
      try {
        whole.get(RUN_SECONDS, TimeUnit.SECONDS);
      } catch (TimeoutException e) {
        run.give();
        whole.cancel(true);
        throw new AssertionError("seed " + seed + ": did not come to an end\n" + run.story(), e);
      } catch (java.util.concurrent.ExecutionException e) {
        throw new AssertionError(
            "seed "
                + seed
                + " (run it alone: -Dforedeck.simulation.seed="
                + seed
                + ")\n"
                + run.story(),
            e.getCause());
      } finally {
        run.give();
      }
    }
  }

  /// What a program is to print.
  ///
  /// @param input whether the sandbox came with a file
  private record Script(byte[] stdout, byte[] stderr, int exitCode, long chunks, boolean input) {}

  /// One seed's run: what outlives control planes, and the client that works through them.
  private static final class Run {
    private final int seed;
    private final Random random;
    private final InMemoryStore store = new InMemoryStore();
    private final FakeBackend backend = new FakeBackend();
    private final ShiftedClock clock = new ShiftedClock();
    private final Ids ids;
    private final List<Fate> fates = new ArrayList<>();
    private final Map<String, Script> scripts = new HashMap<>();
    private final Map<String, AtomicInteger> effects = new ConcurrentHashMap<>();
    private final List<Id> sandboxes = new ArrayList<>();
    private final Map<Id, String> scriptOf = new HashMap<>();
    private final byte[] input = new byte[100_000];
    private volatile List<PoolSetting> pools;
    private volatile Life life;
    private volatile boolean over;

    Run(int seed) {
      this.seed = seed;
      this.random = new Random(seed);
      this.ids = new Ids(clock, new Random(seed + 1L));
      random.nextBytes(input);
      backend.spoolBytes(random.nextInt(500, 5_000));
      backend.program(
          "noise",
          self -> {
            String name = self.start().argv().get(1);
            effects
                .computeIfAbsent(self.start().callId(), _ -> new AtomicInteger())
                .incrementAndGet();
            Script script = scripts.get(name);
            if (script == null
                || (script.input()
                    && !java.util.Arrays.equals(self.agent().file("in.bin"), input))) {
              return 99;
            }
            Random order = new Random(script.chunks());
            int out = 0;
            int err = 0;
            while (out < script.stdout().length || err < script.stderr().length) {
              int n = order.nextInt(1, 3_000);
              if (order.nextBoolean()) {
                int end = Math.min(script.stdout().length, out + n);
                self.write(Channel.STDOUT, java.util.Arrays.copyOfRange(script.stdout(), out, end));
                out = end;
              } else {
                int end = Math.min(script.stderr().length, err + n);
                self.write(Channel.STDERR, java.util.Arrays.copyOfRange(script.stderr(), err, end));
                err = end;
              }
            }
            self.agent().write(name + ".out", script.stdout());
            return script.exitCode();
          });
      this.pools = random.nextInt(4) == 0 ? List.of() : List.of(pool(random.nextInt(1, 3)));
      int crashes = random.nextInt(1, 5);
      for (int i = 0; i < crashes; i++) {
        if (random.nextInt(3) == 0) {
          fates.add(new Fate("", random.nextInt(1, 60)));
        } else {
          String point = POINTS.get(random.nextInt(POINTS.size()));
          boolean often =
              point.equals("commit.before")
                  || point.equals("commit.after")
                  || point.contains("Ack");
          int most = often ? 12 : 2;
          fates.add(new Fate(point, random.nextInt(1, most + 1)));
        }
      }
      this.life = new Life(nextFate());
    }

    /// One control plane.
    private final class Life {
      private final Mortality mortality;
      private final ControlPlane plane;

      Life(Fate fate) {
        mortality = new Mortality(fate, MET);
        MortalDriver driver = new MortalDriver(backend, mortality);
        mortality.onDeath(driver::cutConnections);
        plane =
            new ControlPlane(
                new MortalStore(store, mortality),
                driver,
                new FakeGateway(mortality),
                Map.of("default", POLICY),
                pools,
                POOL_PACE,
                clock,
                ids,
                Limits.DEFAULT,
                PATIENCE);
      }

      void begin() {
        plane.launcher.adopt();
        plane.reaper.start();
        plane.pools.start();
      }

      void end() {
        plane.reaper.close();
        plane.pools.close();
      }
    }

    private static PoolSetting pool(int floor) {
      return new PoolSetting(
          Optional.empty(),
          Optional.empty(),
          OptionalInt.empty(),
          OptionalLong.empty(),
          OptionalLong.empty(),
          new PoolSize(floor, 4));
    }

    private Fate nextFate() {
      return fates.isEmpty() ? Fate.LIVE : fates.removeFirst();
    }

    void whole() throws Exception {
      try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
        Future<?> supervisor = threads.submit(this::supervise);
        try {
          work(threads);
        } finally {
          give();
          supervisor.cancel(true);
        }
      }
    }

    /// Ends the last life: what is still waiting ends with it.
    void give() {
      over = true;
      life.mortality.die();
      life.end();
    }

    /// Starts the next control plane when one has died.
    private void supervise() {
      try {
        while (!over) {
          Life now = life;
          try {
            now.begin();
          } catch (Crash _) {
            // It died at its beginning.
          }
          now.mortality.awaitDeath();
          now.end();
          if (!over) {
            clock.advance(Duration.ofMillis(5));
            life = new Life(nextFate());
          }
        }
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }

    /// What a client does: asks again, under the same key, until it is answered.
    private <T> T ask(Function<ControlPlane, T> question) throws InterruptedException {
      while (true) {
        Life now = life;
        try {
          return question.apply(now.plane);
        } catch (Crash _) {
          if (over) {
            throw new AssertionError("the run is over");
          }
          while (life == now && !over) {
            Thread.sleep(1);
          }
        }
      }
    }

    private static Operation keyed(String route, String key) {
      return ControlPlane.keyed(route, key, Hashes.sha256(key));
    }

    private ToolCall.ProcessStart script(String name, boolean withInput) {
      byte[] stdout = new byte[random.nextInt(0, 20_000)];
      byte[] stderr = new byte[random.nextInt(0, 12_000)];
      random.nextBytes(stdout);
      random.nextBytes(stderr);
      scripts.put(
          name, new Script(stdout, stderr, random.nextInt(0, 5), random.nextLong(), withInput));
      return ControlPlane.process("noise", name);
    }

    private void work(ExecutorService threads) throws Exception {
      int many = random.nextInt(1, 3);
      awaitWarm();
      List<ProvisionRequest> requests = new ArrayList<>();
      List<Future<Map<Id, Map<Channel, byte[]>>>> feeds = new ArrayList<>();
      for (int i = 0; i < many; i++) {
        String name = "s" + i;
        boolean oneCall = random.nextBoolean();
        boolean files = random.nextBoolean();
        Optional<ToolCall.Run> run =
            oneCall ? Optional.of(script(name + "first", files)) : Optional.empty();
        ProvisionRequest request =
            ControlPlane.request(
                run,
                files ? List.of(new InlineFile("in.bin", input)) : List.of(),
                oneCall ? List.of(name + "first.out", "absent") : List.of());
        requests.add(request);
        Provisioned made =
            ask(plane -> plane.sandboxes.create(keyed("POST /v1/sandboxes", name), request));
        sandboxes.add(made.sandbox().id());
        made.call().ifPresent(call -> scriptOf.put(call.id(), name + "first"));
        feeds.add(threads.submit(() -> follow(made.sandbox().id())));
        if (!oneCall) {
          int calls = random.nextInt(1, 4);
          for (int j = 0; j < calls; j++) {
            String callName = name + "c" + j;
            ToolCall.ProcessStart start = script(callName, files);
            Call call =
                ask(plane ->
                    plane.gate.start(
                        keyed("POST calls", callName),
                        made.sandbox().id(),
                        start,
                        false,
                        List.of(callName + ".out")));
            scriptOf.put(call.id(), callName);
          }
        }
      }
      for (Id call : List.copyOf(scriptOf.keySet())) {
        ask(plane -> {
          Call seen = plane.gate.get(ControlPlane.OPERATION, call);
          return plane.gate.awaitEnd(ControlPlane.OPERATION, seen, Duration.ofSeconds(50));
        });
      }
      for (Id sandbox : sandboxes) {
        ask(plane -> plane.sandboxes.destroy(ControlPlane.OPERATION, sandbox));
        ask(plane ->
            plane.sandboxes.awaitEnd(ControlPlane.OPERATION, sandbox, Duration.ofSeconds(50)));
      }
      for (int i = 0; i < many; i++) {
        ProvisionRequest request = requests.get(i);
        String name = "s" + i;
        Provisioned again =
            ask(plane -> plane.sandboxes.create(keyed("POST /v1/sandboxes", name), request));
        assertThat(again.sandbox().id()).as("a repeated create").isEqualTo(sandboxes.get(i));
      }
      // The lives to come have no pool: they drain what this one leaves.
      pools = List.of();
      boolean drained =
          ask(plane -> {
            boolean all = plane.pools.drain(Duration.ofSeconds(30));
            // One that died meanwhile did not drain, and it is the next one's to do.
            plane.store.healthy();
            return all;
          });
      assertThat(drained).as("drained").isTrue();
      Map<Id, Map<Channel, byte[]>> fed = new HashMap<>();
      for (Future<Map<Id, Map<Channel, byte[]>>> feed : feeds) {
        fed.putAll(feed.get());
      }
      verify(fed);
    }

    /// Gives the pool, if there is one, a little time.
    private void awaitWarm() throws InterruptedException {
      long end = System.nanoTime() + Duration.ofSeconds(1).toNanos();
      while (!pools.isEmpty()
          && store.warmSandboxes("here").stream()
              .noneMatch(warm -> warm.state() == WarmSandbox.State.WARM)
          && System.nanoTime() < end) {
        Thread.sleep(1);
      }
    }

    /// A reader with a cursor that outlives the control planes it reads from.
    private Map<Id, Map<Channel, byte[]>> follow(Id sandbox) throws InterruptedException {
      Map<Id, Map<Channel, ByteArrayOutputStream>> seen = new HashMap<>();
      long[] cursor = {0};
      boolean done = false;
      while (!done) {
        done =
            ask(plane -> {
              try (Feeds.Feed<Event> feed =
                  plane.feeds.open(ControlPlane.OPERATION, sandbox, cursor[0])) {
                while (true) {
                  for (Event event : feed.next(Duration.ofMillis(20))) {
                    assertThat(event.seq()).as("seq").isEqualTo(cursor[0] + 1);
                    cursor[0] = event.seq();
                    if (event.type().equals("output")) {
                      append(seen, event);
                    }
                  }
                  if (feed.finished()) {
                    return true;
                  }
                }
              } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                throw new AssertionError(e);
              }
            });
      }
      Map<Id, Map<Channel, byte[]>> bytes = new HashMap<>();
      seen.forEach((call, channels) -> {
        Map<Channel, byte[]> of = new HashMap<>();
        channels.forEach((channel, out) -> of.put(channel, out.toByteArray()));
        bytes.put(call, of);
      });
      return bytes;
    }

    private static void append(Map<Id, Map<Channel, ByteArrayOutputStream>> seen, Event event) {
      Channel channel =
          event.data().path("channel").asText().equals("stdout") ? Channel.STDOUT : Channel.STDERR;
      ByteArrayOutputStream out =
          seen.computeIfAbsent(event.call().orElseThrow(), _ -> new HashMap<>())
              .computeIfAbsent(channel, _ -> new ByteArrayOutputStream());
      assertThat(event.data().path("offset").asLong()).as("offset").isEqualTo(out.size());
      out.writeBytes(
          event.data().has("text")
              ? event.data().path("text").asText().getBytes(StandardCharsets.UTF_8)
              : Base64.getDecoder().decode(event.data().path("base64").asText()));
    }

    private void verify(Map<Id, Map<Channel, byte[]>> fed) throws InterruptedException {
      Map<String, Integer> runs = new HashMap<>();
      for (FakeAgent agent : backend.everyAgent()) {
        agent.runs().forEach((call, n) -> runs.merge(call, n, Integer::sum));
      }
      for (Map.Entry<Id, String> entry : scriptOf.entrySet()) {
        Id id = entry.getKey();
        Script script = java.util.Objects.requireNonNull(scripts.get(entry.getValue()));
        Call call = store.call(id).orElseThrow();
        assertThat(call.status()).as("%s: %s", id, call.result()).isEqualTo(CallStatus.EXITED);
        assertThat(call.result().orElseThrow().exitCode()).isEqualTo(script.exitCode());
        assertThat(runs.get(id.value())).as("runs of %s", id).isEqualTo(1);
        assertThat(effects.get(id.value())).as("effects of %s", id).hasValue(1);
        for (Channel channel : List.of(Channel.STDOUT, Channel.STDERR)) {
          byte[] written = channel == Channel.STDOUT ? script.stdout() : script.stderr();
          String sha256 = Hashes.sha256(written);
          assertThat(Hashes.sha256(store.output(id, channel, 0, 1 << 20)))
              .as("%s of %s by offset", channel, id)
              .isEqualTo(sha256);
          assertThat(
                  Hashes.sha256(fed.getOrDefault(id, Map.of()).getOrDefault(channel, new byte[0])))
              .as("%s of %s through the feed", channel, id)
              .isEqualTo(sha256);
        }
        for (String path : call.outputs()) {
          Optional<byte[]> copied = store.artifact(id, path);
          if (path.equals("absent")) {
            assertThat(copied).isEmpty();
          } else {
            assertThat(copied)
                .as("output %s", path)
                .hasValueSatisfying(bytes -> assertThat(bytes).isEqualTo(script.stdout()));
          }
        }
      }
      for (Id sandbox : sandboxes) {
        List<Event> events = store.events(sandbox, 0, Integer.MAX_VALUE, Integer.MAX_VALUE);
        assertThat(store.sandbox(sandbox).orElseThrow().phase()).isEqualTo(Phase.GONE);
        assertThat(store.liveCalls(sandbox)).isEmpty();
        assertThat(store.files(sandbox)).isEmpty();
        for (String once : List.of("call.requested", "call.started", "call.ended")) {
          List<Id> calls =
              events.stream()
                  .filter(event -> event.type().equals(once))
                  .map(event -> event.call().orElseThrow())
                  .toList();
          assertThat(calls).as(once).doesNotHaveDuplicates();
          assertThat(scriptOf.keySet()).containsAll(calls);
        }
        assertThat(
                events.stream()
                    .filter(event -> event.type().equals("call.output"))
                    .map(event -> event.call().orElseThrow() + event.data().path("path").asText())
                    .toList())
            .doesNotHaveDuplicates();
        assertThat(events.getLast().data().path("phase").asText()).isEqualTo("gone");
        List<String> phases =
            events.stream()
                .filter(event -> event.type().equals("sandbox.phase"))
                .map(event -> event.data().path("phase").asText())
                .toList();
        assertThat(phases.stream().filter("requested"::equals)).as("phases").hasSize(1);
        assertThat(phases.stream().filter("ready"::equals)).as("phases").hasSizeLessThan(2);
        if (events.stream()
            .anyMatch(e -> e.data().path("reason").asText().equals("claimed from the pool"))) {
          CLAIMED.incrementAndGet();
        }
      }
      assertThat(store.sandboxes(ControlPlane.TENANT, Map.of(), Set.of(), Optional.empty(), 100))
          .as("sandboxes made")
          .hasSize(sandboxes.size());
      assertThat(sandboxes).as("each a sandbox of its own").doesNotHaveDuplicates();
      assertThat(store.liveSandboxes("here")).isEmpty();
      assertThat(store.warmSandboxes("here")).isEmpty();
      long end = System.nanoTime() + Duration.ofSeconds(20).toNanos();
      while (!backend.states().isEmpty() && System.nanoTime() < end) {
        Thread.sleep(1);
      }
      assertThat(backend.states()).as("left in the backend").isEmpty();
    }

    String story() {
      StringBuilder story = new StringBuilder();
      for (Id sandbox : List.copyOf(sandboxes)) {
        story.append(sandbox).append(' ').append(store.sandbox(sandbox)).append('\n');
        for (Event event : store.events(sandbox, 0, 10_000, Integer.MAX_VALUE)) {
          story.append("  ").append(event.seq()).append(' ').append(event.type()).append(' ');
          story.append(event.call().map(Id::value).orElse("")).append(' ');
          story.append(event.type().equals("output") ? "" : event.data()).append('\n');
        }
      }
      return story.append("seed ").append(seed).toString();
    }
  }
}
