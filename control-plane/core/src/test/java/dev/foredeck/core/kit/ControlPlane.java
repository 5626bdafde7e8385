package dev.foredeck.core.kit;

import dev.foredeck.core.ApiKeys;
import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Operation;
import dev.foredeck.core.Patience;
import dev.foredeck.core.Policies;
import dev.foredeck.core.Principal;
import dev.foredeck.core.Role;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.egress.EgressGateway;
import dev.foredeck.core.feed.LogFeeds;
import dev.foredeck.core.gate.Agents;
import dev.foredeck.core.gate.Gate;
import dev.foredeck.core.gate.Recorder;
import dev.foredeck.core.gate.ToolCall;
import dev.foredeck.core.pool.PoolPace;
import dev.foredeck.core.pool.PoolSetting;
import dev.foredeck.core.pool.WarmPools;
import dev.foredeck.core.sandbox.InlineFile;
import dev.foredeck.core.sandbox.Launcher;
import dev.foredeck.core.sandbox.ProvisionRequest;
import dev.foredeck.core.sandbox.Provisioning;
import dev.foredeck.core.sandbox.Reaper;
import dev.foredeck.core.store.Store;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.time.Clock;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;

/// One life of a control plane, put together as `app` does it.
public final class ControlPlane {
  public static final Id TENANT = new Id("ten0000000000000000");
  public static final Principal ALICE =
      new Principal(TENANT, new Id("key0000000000000000"), "alice", Role.DEVELOPER);
  public static final Operation OPERATION = new Operation(ALICE, "trace", Optional.empty());

  /// Short, so that a test of an agent that says nothing takes no time.
  public static final Patience IMPATIENT =
      new Patience(
          Duration.ofSeconds(5),
          Duration.ofSeconds(5),
          Duration.ofSeconds(5),
          Duration.ofMillis(500),
          Duration.ofMillis(500),
          Duration.ofSeconds(5),
          Duration.ofMillis(300),
          Duration.ofMillis(500),
          Duration.ofMillis(200),
          Duration.ofSeconds(5),
          Duration.ofMillis(20),
          Duration.ofMillis(2),
          Duration.ofMillis(50),
          Duration.ofMillis(20));

  private static final ScheduledExecutorService TIMER =
      Executors.newSingleThreadScheduledExecutor(
          Thread.ofPlatform().daemon().name("test-deadlines").factory());

  public final Store store;
  public final Gate gate;
  public final Provisioning sandboxes;
  public final LogFeeds feeds;
  public final WarmPools pools;
  public final Launcher launcher;
  public final Reaper reaper;
  public final Policies policies;
  public final ApiKeys keys;

  /// Without warm pools.
  public ControlPlane(
      Store store,
      Driver driver,
      EgressGateway egress,
      Map<String, String> policySources,
      Clock clock,
      Ids ids,
      Limits limits,
      Patience patience) {
    this(
        store,
        driver,
        egress,
        policySources,
        List.of(),
        PoolPace.DEFAULT,
        clock,
        ids,
        limits,
        patience);
  }

  public ControlPlane(
      Store store,
      Driver driver,
      EgressGateway egress,
      Map<String, String> policySources,
      List<PoolSetting> poolSettings,
      PoolPace poolPace,
      Clock clock,
      Ids ids,
      Limits limits,
      Patience patience) {
    this.store = store;
    Agents agents =
        new Agents(driver, "deployment".getBytes(StandardCharsets.UTF_8), TIMER, patience);
    this.policies = new Policies(policySources, store);
    Recorder recorder = new Recorder(clock, ids, limits);
    this.pools =
        new WarmPools(
            store,
            driver,
            agents,
            policies,
            poolSettings,
            "here",
            clock,
            ids,
            limits,
            patience,
            poolPace);
    this.launcher =
        new Launcher(
            store, driver, egress, agents, policies, pools, "here", clock, limits, patience);
    this.gate = new Gate(store, agents, policies, recorder, launcher, clock, limits, patience);
    this.sandboxes =
        new Provisioning(
            store,
            policies,
            recorder,
            launcher,
            pools,
            driver.templates(),
            "here",
            clock,
            ids,
            limits);
    this.feeds = new LogFeeds(store, limits, patience);
    this.reaper = new Reaper(store, driver, launcher, Duration.ofMillis(50));
    this.keys = new ApiKeys(store, clock, ids, new SecureRandom());
  }

  public static Operation keyed(String route, String key, String bodyHash) {
    return new Operation(
        ALICE, "trace", Optional.of(new Operation.Idempotency(route, key, bodyHash)));
  }

  /// A request that says nothing but what it is given.
  public static ProvisionRequest request(Optional<ToolCall.Run> run) {
    return request(run, List.of(), List.of());
  }

  public static ProvisionRequest request(
      Optional<ToolCall.Run> run, List<InlineFile> files, List<String> outputs) {
    return new ProvisionRequest(
        Optional.empty(),
        OptionalInt.empty(),
        OptionalLong.empty(),
        OptionalLong.empty(),
        Optional.empty(),
        Optional.empty(),
        Map.of(),
        Map.of(),
        files,
        Optional.empty(),
        run,
        outputs,
        Optional.empty());
  }

  public static ToolCall.ProcessStart process(String... argv) {
    return new ToolCall.ProcessStart(
        List.of(argv), "/workspace", Map.of(), Optional.empty(), false);
  }
}
