package dev.foredeck.core.store;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.Resources;
import dev.foredeck.core.Role;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallResult;
import dev.foredeck.core.gate.CallStatus;
import dev.foredeck.core.pool.WarmSandbox;
import dev.foredeck.core.sandbox.InlineFile;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Change.AddWarm;
import dev.foredeck.core.store.Change.AppendEvent;
import dev.foredeck.core.store.Change.AppendOutput;
import dev.foredeck.core.store.Change.ClaimKey;
import dev.foredeck.core.store.Change.CreateCall;
import dev.foredeck.core.store.Change.CreateSandbox;
import dev.foredeck.core.store.Change.EndCall;
import dev.foredeck.core.store.Change.ForgetFiles;
import dev.foredeck.core.store.Change.MoveSandbox;
import dev.foredeck.core.store.Change.MoveWarm;
import dev.foredeck.core.store.Change.PatchSandbox;
import dev.foredeck.core.store.Change.Refusal;
import dev.foredeck.core.store.Change.SaveArtifact;
import dev.foredeck.core.store.Change.SkipOutput;
import dev.foredeck.core.store.Change.StartCall;
import dev.foredeck.core.store.Change.TakeWarm;
import dev.foredeck.core.store.Store.ApiKey;
import dev.foredeck.core.store.Store.Artifact;
import dev.foredeck.core.store.Store.KeyedRequest;
import dev.foredeck.protocol.Channel;
import java.security.SecureRandom;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Test;

/// What every store does. Cases share one store and never an id, so a slow store can be started
/// once for all of them.
public abstract class StoreContract {
  /// A fixed time of whole microseconds: what databases keep.
  protected static final Instant NOW = Instant.parse("2026-05-04T10:11:12.123456Z");

  protected static final int NO_LIMIT = 1_000_000;

  protected final Ids ids = new Ids(Clock.fixed(NOW, ZoneOffset.UTC), new SecureRandom());

  protected abstract Store store();

  // Making things.

  protected Sandbox newSandbox(Id tenant, String owner) {
    return newSandbox(ids.sandbox(), tenant, owner, Map.of());
  }

  protected static Sandbox newSandbox(Id id, Id tenant, String owner, Map<String, String> labels) {
    return new Sandbox(
        id,
        tenant,
        owner,
        "host",
        new Resources(1000, 1L << 30, 2L << 30, 256),
        "default@1",
        Map.of("K", "V \u00e4 \"quoted\" \\ {x}, 'y'"),
        labels,
        Optional.of(List.of("pypi.org", "*.example.com")),
        false,
        Phase.REQUESTED,
        "",
        "",
        NOW,
        NOW.plusSeconds(900),
        Optional.empty());
  }

  protected WarmSandbox newWarm(String owner) {
    return new WarmSandbox(
        ids.sandbox(),
        owner,
        "host",
        new Resources(1000, 1L << 30, 2L << 30, 256),
        "default@1",
        WarmSandbox.State.WARMING,
        "",
        NOW,
        NOW,
        NOW.plusSeconds(7200));
  }

  protected Call newCall(Sandbox sandbox) {
    return newCall(ids.call(), sandbox.id(), sandbox.tenant());
  }

  protected Call newCall(Id id, Id sandbox, Id tenant) {
    return new Call(
        id,
        sandbox,
        tenant,
        "process.start",
        "{\"argv\":[\"printf\",\"a\\u0000b\",\"{},\\\"'\"]}",
        "d1",
        ids.key(),
        false,
        List.of("chart.png", "a,b\"c\\d"),
        true,
        CallStatus.PENDING,
        NOW,
        NOW.plusSeconds(60),
        Optional.empty(),
        0,
        0,
        0,
        false,
        Optional.empty());
  }

  protected CommitResult create(Sandbox sandbox) {
    return store()
        .commit(Commit.of(sandbox.id(), new CreateSandbox(sandbox, List.of(), NO_LIMIT, NO_LIMIT)));
  }

  protected Sandbox created() {
    Sandbox sandbox = newSandbox(ids.tenant(), "here");
    assertCommitted(create(sandbox));
    return sandbox;
  }

  protected Call createdCall(Sandbox sandbox) {
    Call call = newCall(sandbox);
    assertCommitted(store().commit(Commit.of(sandbox.id(), new CreateCall(call, NO_LIMIT))));
    return call;
  }

  protected CommitResult commit(Id sandbox, Change... changes) {
    return store().commit(Commit.of(sandbox, changes));
  }

  protected static NewEvent event(String type, String note) {
    return new NewEvent(NOW, type, Optional.empty(), body().put("note", note));
  }

  protected static NewEvent outputEvent(Id call, Channel channel, long offset, long length) {
    return new NewEvent(
        NOW,
        "output",
        Optional.of(call),
        body().put("channel", channel.wireName()).put("offset", offset).put("length", length));
  }

  protected static ObjectNode body() {
    return JsonNodeFactory.instance.objectNode();
  }

  protected static CallResult exited() {
    return new CallResult(CallStatus.EXITED, 3, 0, "why", 1234, 5678, 90, 11, NOW.plusSeconds(5));
  }

  protected static MoveSandbox move(Phase from, Phase to) {
    return new MoveSandbox(Set.of(from), to, "because", Optional.empty(), NOW.plusSeconds(1));
  }

  protected static long assertCommitted(CommitResult result) {
    assertThat(result).isInstanceOf(CommitResult.Committed.class);
    return ((CommitResult.Committed) result).lastSeq();
  }

  protected static void assertRefused(CommitResult result, int index, Refusal refusal) {
    assertThat(result)
        .isInstanceOfSatisfying(
            CommitResult.Refused.class,
            refused -> {
              assertThat(refused.index()).isEqualTo(index);
              assertThat(refused.refusal()).isEqualTo(refusal);
            });
  }

  // Sandboxes.

  @Test
  void keepsAllOfASandbox() {
    Sandbox sandbox = created();
    assertThat(store().sandbox(sandbox.id())).contains(sandbox);
    assertThat(store().sandbox(ids.sandbox())).isEmpty();
  }

  @Test
  void tellsNoNetworkListFromAnEmptyOne() {
    Sandbox model = newSandbox(ids.tenant(), "here");
    for (Optional<List<String>> allow :
        List.<Optional<List<String>>>of(Optional.empty(), Optional.of(List.of()))) {
      Sandbox sandbox =
          new Sandbox(
              ids.sandbox(),
              model.tenant(),
              "here",
              "host",
              model.resources(),
              model.policy(),
              Map.of(),
              Map.of(),
              allow,
              true,
              Phase.REQUESTED,
              "",
              "",
              NOW,
              NOW,
              Optional.empty());
      assertCommitted(create(sandbox));
      assertThat(store().sandbox(sandbox.id())).contains(sandbox);
    }
  }

  @Test
  void refusesASandboxThatExists() {
    Sandbox sandbox = created();
    assertRefused(create(sandbox), 0, Refusal.EXISTS);
  }

  @Test
  void movesASandboxOnlyFromThePhasesNamed() {
    Sandbox sandbox = created();
    assertRefused(commit(sandbox.id(), move(Phase.READY, Phase.STOPPING)), 0, Refusal.WRONG_PHASE);
    assertCommitted(
        commit(
            sandbox.id(),
            new MoveSandbox(
                Set.of(Phase.REQUESTED, Phase.STARTING),
                Phase.READY,
                "greeted",
                Optional.of("boot1"),
                NOW)));
    Sandbox ready = store().sandbox(sandbox.id()).orElseThrow();
    assertThat(ready.phase()).isEqualTo(Phase.READY);
    assertThat(ready.reason()).isEqualTo("greeted");
    assertThat(ready.bootId()).isEqualTo("boot1");
    assertThat(ready.endedAt()).isEmpty();
    assertCommitted(commit(sandbox.id(), move(Phase.READY, Phase.GONE)));
    Sandbox gone = store().sandbox(sandbox.id()).orElseThrow();
    assertThat(gone.bootId()).isEqualTo("boot1");
    assertThat(gone.endedAt()).contains(NOW.plusSeconds(1));
    assertRefused(commit(ids.sandbox(), move(Phase.READY, Phase.GONE)), 0, Refusal.WRONG_PHASE);
  }

  @Test
  void patchesALiveSandbox() {
    Sandbox sandbox = created();
    assertCommitted(
        commit(
            sandbox.id(),
            new PatchSandbox(Optional.of(NOW.plusSeconds(5)), Optional.of(Map.of("a", "b")))));
    assertCommitted(commit(sandbox.id(), new PatchSandbox(Optional.empty(), Optional.empty())));
    Sandbox patched = store().sandbox(sandbox.id()).orElseThrow();
    assertThat(patched.expiresAt()).isEqualTo(NOW.plusSeconds(5));
    assertThat(patched.labels()).isEqualTo(Map.of("a", "b"));
    assertCommitted(commit(sandbox.id(), move(Phase.REQUESTED, Phase.STOPPING)));
    assertRefused(
        commit(sandbox.id(), new PatchSandbox(Optional.of(NOW), Optional.empty())),
        0,
        Refusal.WRONG_PHASE);
    assertCommitted(commit(sandbox.id(), move(Phase.STOPPING, Phase.GONE)));
    assertRefused(
        commit(sandbox.id(), new PatchSandbox(Optional.of(NOW), Optional.empty())),
        0,
        Refusal.WRONG_PHASE);
    assertRefused(
        commit(ids.sandbox(), new PatchSandbox(Optional.empty(), Optional.empty())),
        0,
        Refusal.WRONG_PHASE);
  }

  // Warm sandboxes.

  private static MoveWarm warmed(WarmSandbox.State from, WarmSandbox.State to, String bootId) {
    return new MoveWarm(
        Set.of(from),
        to,
        bootId.isEmpty() ? Optional.empty() : Optional.of(bootId),
        NOW.plusSeconds(1));
  }

  @Test
  void keepsAllOfAWarmSandboxThroughItsStates() {
    WarmSandbox made = newWarm("owner-" + ids.key());
    assertCommitted(commit(made.id(), new AddWarm(made)));
    assertThat(store().warmSandbox(made.id())).contains(made);
    assertThat(store().warmSandbox(ids.sandbox())).isEmpty();
    assertCommitted(
        commit(made.id(), warmed(WarmSandbox.State.WARMING, WarmSandbox.State.WARM, "boot1")));
    WarmSandbox warm = made.moved(WarmSandbox.State.WARM, Optional.of("boot1"), NOW.plusSeconds(1));
    assertThat(store().warmSandbox(made.id())).contains(warm);
    assertCommitted(
        commit(made.id(), warmed(WarmSandbox.State.WARM, WarmSandbox.State.RETIRING, "")));
    assertThat(store().warmSandbox(made.id()))
        .contains(warm.moved(WarmSandbox.State.RETIRING, Optional.empty(), NOW.plusSeconds(1)));
    assertCommitted(commit(made.id(), new TakeWarm(WarmSandbox.State.RETIRING)));
    assertThat(store().warmSandbox(made.id())).isEmpty();
  }

  @Test
  void movesAndTakesAWarmSandboxOnlyFromTheStatesNamed() {
    WarmSandbox made = newWarm("owner-" + ids.key());
    assertRefused(commit(made.id(), new TakeWarm(WarmSandbox.State.WARM)), 0, Refusal.TAKEN);
    assertRefused(
        commit(made.id(), warmed(WarmSandbox.State.WARMING, WarmSandbox.State.WARM, "b")),
        0,
        Refusal.TAKEN);
    assertCommitted(commit(made.id(), new AddWarm(made)));
    assertRefused(commit(made.id(), new AddWarm(made)), 0, Refusal.EXISTS);
    assertRefused(commit(made.id(), new TakeWarm(WarmSandbox.State.WARM)), 0, Refusal.TAKEN);
    assertRefused(
        commit(made.id(), warmed(WarmSandbox.State.WARM, WarmSandbox.State.RETIRING, "")),
        0,
        Refusal.TAKEN);
    assertThat(store().warmSandbox(made.id())).contains(made);
  }

  @Test
  void listsTheWarmSandboxesOfAnOwner() {
    String owner = "owner-" + ids.key();
    List<WarmSandbox> made = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      WarmSandbox warm = newWarm(i == 1 ? "other-" + owner : owner);
      assertCommitted(commit(warm.id(), new AddWarm(warm)));
      made.add(warm);
    }
    List<WarmSandbox> ours = new ArrayList<>(List.of(made.get(0), made.get(2)));
    ours.sort(java.util.Comparator.comparing(WarmSandbox::id));
    assertThat(store().warmSandboxes(owner)).isEqualTo(ours);
    assertThat(store().liveSandboxes(owner)).isEmpty();
  }

  @Test
  void claimsAWarmSandboxAndMakesTheSandboxInOneCommit() {
    WarmSandbox warm = newWarm("owner-" + ids.key());
    assertCommitted(commit(warm.id(), new AddWarm(warm)));
    assertCommitted(
        commit(warm.id(), warmed(WarmSandbox.State.WARMING, WarmSandbox.State.WARM, "boot1")));
    Sandbox sandbox = newSandbox(warm.id(), ids.tenant(), warm.owner(), Map.of());
    // Refused as a whole: it is still to be had.
    assertRefused(
        commit(
            warm.id(),
            new TakeWarm(WarmSandbox.State.WARM),
            new CreateSandbox(sandbox, List.of(), 0, NO_LIMIT)),
        1,
        Refusal.QUOTA);
    assertThat(store().warmSandbox(warm.id()).orElseThrow().state())
        .isEqualTo(WarmSandbox.State.WARM);
    assertThat(
            assertCommitted(
                commit(
                    warm.id(),
                    new TakeWarm(WarmSandbox.State.WARM),
                    new CreateSandbox(sandbox, List.of(), NO_LIMIT, NO_LIMIT),
                    new AppendEvent(event("sandbox.phase", "ready")))))
        .isEqualTo(1);
    assertThat(store().warmSandbox(warm.id())).isEmpty();
    assertThat(store().sandbox(warm.id())).contains(sandbox);
    assertRefused(commit(warm.id(), new TakeWarm(WarmSandbox.State.WARM)), 0, Refusal.TAKEN);
  }

  @Test
  void letsOneOfManyHaveAWarmSandbox() throws Exception {
    int rounds = 10;
    int many = 16;
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      for (int round = 0; round < rounds; round++) {
        WarmSandbox warm = newWarm("owner-" + ids.key());
        assertCommitted(commit(warm.id(), new AddWarm(warm)));
        List<Callable<CommitResult>> takers = new ArrayList<>();
        for (int i = 0; i < many; i++) {
          Sandbox sandbox = newSandbox(warm.id(), ids.tenant(), warm.owner(), Map.of());
          takers.add(() ->
              commit(
                  warm.id(),
                  new TakeWarm(WarmSandbox.State.WARMING),
                  new CreateSandbox(sandbox, List.of(), NO_LIMIT, NO_LIMIT),
                  new AppendEvent(event("sandbox.phase", "ready"))));
        }
        List<CommitResult> results = new ArrayList<>();
        for (Future<CommitResult> future : threads.invokeAll(takers)) {
          results.add(future.get());
        }
        assertThat(results.stream().filter(CommitResult.Committed.class::isInstance)).hasSize(1);
        assertThat(results.stream().filter(CommitResult.Refused.class::isInstance))
            .hasSize(many - 1)
            .allSatisfy(result -> assertRefused(result, 0, Refusal.TAKEN));
        assertThat(store().lastSeq(warm.id())).isEqualTo(1);
      }
    }
  }

  @Test
  void limitsATenantsLiveSandboxesAndATerminalMoveFreesOne() {
    Id tenant = ids.tenant();
    List<Sandbox> made = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      Sandbox sandbox = newSandbox(tenant, "owner-" + ids.key());
      CommitResult result =
          commit(sandbox.id(), new CreateSandbox(sandbox, List.of(), 2, NO_LIMIT));
      if (i < 2) {
        assertCommitted(result);
        made.add(sandbox);
      } else {
        assertRefused(result, 0, Refusal.QUOTA);
        assertThat(store().sandbox(sandbox.id())).isEmpty();
      }
    }
    assertCommitted(commit(made.getFirst().id(), move(Phase.REQUESTED, Phase.STOPPING)));
    Sandbox next = newSandbox(tenant, "other");
    CreateSandbox again = new CreateSandbox(next, List.of(), 2, NO_LIMIT);
    assertRefused(commit(next.id(), again), 0, Refusal.QUOTA);
    assertCommitted(commit(made.getFirst().id(), move(Phase.STOPPING, Phase.FAILED)));
    assertCommitted(commit(next.id(), again));
  }

  @Test
  void limitsAnOwnersLiveSandboxes() {
    String owner = "owner-" + ids.key();
    Sandbox first = newSandbox(ids.tenant(), owner);
    Sandbox second = newSandbox(ids.tenant(), owner);
    assertCommitted(commit(first.id(), new CreateSandbox(first, List.of(), NO_LIMIT, 1)));
    CreateSandbox creation = new CreateSandbox(second, List.of(), NO_LIMIT, 1);
    assertRefused(commit(second.id(), creation), 0, Refusal.QUOTA);
    assertCommitted(commit(first.id(), move(Phase.REQUESTED, Phase.GONE)));
    assertCommitted(commit(second.id(), creation));
  }

  @Test
  void quotaHoldsWhenManyAskAtOnce() throws Exception {
    Id tenant = ids.tenant();
    List<CommitResult> results =
        together(
            24,
            _ -> {
              Sandbox sandbox = newSandbox(tenant, "here");
              return commit(sandbox.id(), new CreateSandbox(sandbox, List.of(), 5, NO_LIMIT));
            });
    assertThat(results).filteredOn(r -> r instanceof CommitResult.Committed).hasSize(5);
    assertThat(store().sandboxes(tenant, Map.of(), Set.of(), Optional.empty(), 100)).hasSize(5);
  }

  @Test
  void keepsFilesUntilTheyAreForgotten() {
    Sandbox sandbox = newSandbox(ids.tenant(), "here");
    byte[] bytes = {0, 1, -1, 127, -128};
    assertCommitted(
        commit(
            sandbox.id(),
            new CreateSandbox(
                sandbox,
                List.of(new InlineFile("b/x.bin", bytes), new InlineFile("a.csv", new byte[0])),
                NO_LIMIT,
                NO_LIMIT)));
    List<InlineFile> files = store().files(sandbox.id());
    assertThat(files).extracting(InlineFile::path).containsExactly("b/x.bin", "a.csv");
    assertThat(files.getFirst().bytes()).isEqualTo(bytes);
    assertThat(files.getLast().bytes()).isEmpty();
    assertCommitted(commit(sandbox.id(), new ForgetFiles()));
    assertThat(store().files(sandbox.id())).isEmpty();
  }

  @Test
  void pagesATenantsSandboxesNewestFirst() {
    Id tenant = ids.tenant();
    List<Sandbox> made = new ArrayList<>();
    for (int i = 0; i < 5; i++) {
      Ids then = new Ids(Clock.fixed(NOW.plusSeconds(i), ZoneOffset.UTC), new SecureRandom());
      Sandbox sandbox =
          newSandbox(
              then.sandbox(),
              tenant,
              "here",
              Map.of("parity", i % 2 == 0 ? "even" : "odd", "n", "" + i));
      assertCommitted(create(sandbox));
      made.addFirst(sandbox);
    }
    created();
    List<Sandbox> page = store().sandboxes(tenant, Map.of(), Set.of(), Optional.empty(), 3);
    assertThat(page).isEqualTo(made.subList(0, 3));
    assertThat(store().sandboxes(tenant, Map.of(), Set.of(), Optional.of(page.getLast().id()), 3))
        .isEqualTo(made.subList(3, 5));
    assertThat(store().sandboxes(tenant, Map.of("parity", "odd"), Set.of(), Optional.empty(), 9))
        .containsExactly(made.get(1), made.get(3));
    assertThat(
            store()
                .sandboxes(
                    tenant, Map.of("parity", "odd", "n", "2"), Set.of(), Optional.empty(), 9))
        .isEmpty();
    assertCommitted(commit(made.get(2).id(), move(Phase.REQUESTED, Phase.READY)));
    assertThat(
            store()
                .sandboxes(tenant, Map.of(), Set.of(Phase.READY, Phase.GONE), Optional.empty(), 9))
        .extracting(Sandbox::id)
        .containsExactly(made.get(2).id());
  }

  @Test
  void knowsWhatAReplicaLooksAfter() {
    String owner = "owner-" + ids.key();
    Sandbox live = newSandbox(ids.tenant(), owner);
    Sandbox gone = newSandbox(ids.tenant(), owner);
    assertCommitted(create(live));
    assertCommitted(create(gone));
    assertCommitted(commit(gone.id(), move(Phase.REQUESTED, Phase.GONE)));
    assertThat(store().liveSandboxes(owner)).containsExactly(live);
  }

  // Calls.

  @Test
  void keepsAllOfACall() {
    Sandbox sandbox = created();
    Call call = createdCall(sandbox);
    assertThat(store().call(call.id())).contains(call);
    assertThat(store().call(ids.call())).isEmpty();
    assertRefused(commit(sandbox.id(), new CreateCall(call, NO_LIMIT)), 0, Refusal.EXISTS);
  }

  @Test
  void startsAndEndsACallOnce() {
    Sandbox sandbox = created();
    Call call = createdCall(sandbox);
    StartCall start = new StartCall(call.id(), 42, NOW.plusMillis(5));
    assertCommitted(commit(sandbox.id(), start));
    Call running = store().call(call.id()).orElseThrow();
    assertThat(running.status()).isEqualTo(CallStatus.RUNNING);
    assertThat(running.pid()).isEqualTo(42);
    assertThat(running.startedAt()).contains(NOW.plusMillis(5));
    assertRefused(commit(sandbox.id(), start), 0, Refusal.ENDED);
    assertThat(store().liveCalls(sandbox.id())).containsExactly(running);
    assertCommitted(commit(sandbox.id(), new EndCall(call.id(), exited())));
    Call ended = store().call(call.id()).orElseThrow();
    assertThat(ended.status()).isEqualTo(CallStatus.EXITED);
    assertThat(ended.result()).contains(exited());
    assertThat(store().liveCalls(sandbox.id())).isEmpty();
    assertRefused(commit(sandbox.id(), new EndCall(call.id(), exited())), 0, Refusal.ENDED);
    assertRefused(commit(sandbox.id(), start), 0, Refusal.ENDED);
  }

  @Test
  void aCallMayBeBornAndEndInOneCommit() {
    Sandbox sandbox = newSandbox(ids.tenant(), "here");
    Call call = newCall(sandbox);
    assertThat(
            assertCommitted(
                commit(
                    sandbox.id(),
                    new CreateSandbox(sandbox, List.of(), NO_LIMIT, NO_LIMIT),
                    new AppendEvent(event("sandbox.phase", "requested")),
                    new CreateCall(call, 1),
                    new StartCall(call.id(), 7, NOW),
                    new AppendOutput(call.id(), Channel.STDOUT, 0, "hi".getBytes(UTF_8)),
                    new AppendEvent(outputEvent(call.id(), Channel.STDOUT, 0, 2)),
                    new EndCall(call.id(), exited()),
                    move(Phase.REQUESTED, Phase.GONE))))
        .isEqualTo(2);
    Call ended = store().call(call.id()).orElseThrow();
    assertThat(ended.status()).isEqualTo(CallStatus.EXITED);
    assertThat(ended.stdoutBytes()).isEqualTo(2);
    assertThat(ended.pid()).isEqualTo(7);
    assertThat(store().sandbox(sandbox.id()).orElseThrow().phase()).isEqualTo(Phase.GONE);
  }

  @Test
  void changesToAnUnknownCallAreRefusedAsEnded() {
    Sandbox sandbox = created();
    Call call = createdCall(sandbox);
    Sandbox other = created();
    for (Id unknown : List.of(ids.call(), call.id())) {
      Id log = unknown.equals(call.id()) ? other.id() : sandbox.id();
      assertRefused(commit(log, new StartCall(unknown, 1, NOW)), 0, Refusal.ENDED);
      assertRefused(commit(log, new EndCall(unknown, exited())), 0, Refusal.ENDED);
      assertRefused(
          commit(log, new AppendOutput(unknown, Channel.STDOUT, 0, new byte[1])), 0, Refusal.ENDED);
      assertRefused(commit(log, new SkipOutput(unknown, Channel.STDOUT, 0, 1)), 0, Refusal.ENDED);
    }
  }

  @Test
  void limitsASandboxesLiveCallsAndAnEndFreesOne() {
    Sandbox sandbox = created();
    Call first = newCall(sandbox);
    assertCommitted(commit(sandbox.id(), new CreateCall(first, 1)));
    Call second = newCall(sandbox);
    assertRefused(commit(sandbox.id(), new CreateCall(second, 1)), 0, Refusal.QUOTA);
    assertCommitted(commit(sandbox.id(), new EndCall(first.id(), exited())));
    assertCommitted(commit(sandbox.id(), new CreateCall(second, 1)));
    assertThat(store().liveCalls(sandbox.id())).containsExactly(second);
  }

  @Test
  void takesNoLiveCallForASandboxThatGoesButRecordsARefusedOne() {
    Sandbox sandbox = created();
    assertCommitted(commit(sandbox.id(), move(Phase.REQUESTED, Phase.STOPPING)));
    Call live = newCall(sandbox);
    assertRefused(commit(sandbox.id(), new CreateCall(live, NO_LIMIT)), 0, Refusal.WRONG_PHASE);
    Call denied =
        new Call(
            ids.call(),
            sandbox.id(),
            sandbox.tenant(),
            "file.read",
            "{}",
            "d",
            ids.key(),
            false,
            List.of(),
            false,
            CallStatus.DENIED,
            NOW,
            NOW,
            Optional.empty(),
            0,
            0,
            0,
            false,
            Optional.of(new CallResult(CallStatus.DENIED, -1, 0, "no rule", 0, 0, 0, 0, NOW)));
    assertCommitted(commit(sandbox.id(), new CreateCall(denied, 0)));
    assertThat(store().call(denied.id())).contains(denied);
    assertThat(store().liveCalls(sandbox.id())).isEmpty();
    Sandbox nowhere = newSandbox(ids.tenant(), "here");
    assertRefused(
        commit(nowhere.id(), new CreateCall(newCall(nowhere), 1)), 0, Refusal.WRONG_PHASE);
  }

  // Output.

  @Test
  void outputIsACompareAndSetOnItsOffset() {
    Sandbox sandbox = created();
    Id call = createdCall(sandbox).id();
    byte[] abc = "abc".getBytes(UTF_8);
    assertRefused(
        commit(sandbox.id(), new AppendOutput(call, Channel.STDOUT, 1, abc)),
        0,
        Refusal.WRONG_OFFSET);
    assertCommitted(commit(sandbox.id(), new AppendOutput(call, Channel.STDOUT, 0, abc)));
    assertRefused(
        commit(sandbox.id(), new AppendOutput(call, Channel.STDOUT, 0, abc)),
        0,
        Refusal.WRONG_OFFSET);
    assertCommitted(
        commit(sandbox.id(), new AppendOutput(call, Channel.STDERR, 0, "E".getBytes(UTF_8))));
    assertCommitted(
        commit(
            sandbox.id(),
            new AppendOutput(call, Channel.STDOUT, 3, "de".getBytes(UTF_8)),
            new AppendOutput(call, Channel.STDOUT, 5, "f".getBytes(UTF_8))));
    Call read = store().call(call).orElseThrow();
    assertThat(read.stdoutBytes()).isEqualTo(6);
    assertThat(read.stderrBytes()).isEqualTo(1);
    assertThat(read.truncated()).isFalse();
    assertThat(store().recordedBytes(call, Channel.STDOUT)).isEqualTo(6);
    assertThat(store().output(call, Channel.STDOUT, 0, 100)).asString(UTF_8).isEqualTo("abcdef");
    assertThat(store().output(call, Channel.STDOUT, 1, 3)).asString(UTF_8).isEqualTo("bcd");
    assertThat(store().output(call, Channel.STDOUT, 4, 100)).asString(UTF_8).isEqualTo("ef");
    assertThat(store().output(call, Channel.STDOUT, 6, 100)).isEmpty();
    assertThat(store().output(call, Channel.STDERR, 0, 100)).asString(UTF_8).isEqualTo("E");
    assertCommitted(commit(sandbox.id(), new EndCall(call, exited())));
    assertRefused(
        commit(sandbox.id(), new AppendOutput(call, Channel.STDOUT, 6, abc)), 0, Refusal.ENDED);
    assertRefused(
        commit(sandbox.id(), new SkipOutput(call, Channel.STDOUT, 6, 1)), 0, Refusal.ENDED);
  }

  @Test
  void skippedOutputMovesTheOffsetAndCannotBeRead() {
    Sandbox sandbox = created();
    Id call = createdCall(sandbox).id();
    assertCommitted(
        commit(
            sandbox.id(),
            new AppendOutput(call, Channel.STDERR, 0, "kept".getBytes(UTF_8)),
            new SkipOutput(call, Channel.STDERR, 4, 1_000)));
    assertRefused(
        commit(sandbox.id(), new SkipOutput(call, Channel.STDERR, 4, 1)), 0, Refusal.WRONG_OFFSET);
    assertCommitted(
        commit(
            sandbox.id(), new AppendOutput(call, Channel.STDERR, 1_004, "tail".getBytes(UTF_8))));
    Call read = store().call(call).orElseThrow();
    assertThat(read.stderrBytes()).isEqualTo(1_008);
    assertThat(read.truncated()).isTrue();
    assertThat(store().recordedBytes(call, Channel.STDERR)).isEqualTo(4);
    assertThat(store().output(call, Channel.STDERR, 0, 5_000)).asString(UTF_8).isEqualTo("kept");
    assertThat(store().output(call, Channel.STDERR, 4, 5_000)).isEmpty();
    assertThat(store().output(call, Channel.STDERR, 1_003, 5_000)).isEmpty();
    assertThat(store().output(call, Channel.STDERR, 1_005, 5_000)).asString(UTF_8).isEqualTo("ail");
  }

  @Test
  void joinsOutputIntoEvents() {
    Sandbox sandbox = created();
    Id call = createdCall(sandbox).id();
    byte[] first = "h\u00e9l\u0000".getBytes(UTF_8);
    byte[] second = "lo".getBytes(UTF_8);
    byte[] binary = {(byte) 0xff, 0, (byte) 0xc3};
    assertCommitted(
        commit(
            sandbox.id(),
            new AppendOutput(call, Channel.STDOUT, 0, first),
            new AppendOutput(call, Channel.STDOUT, first.length, second),
            new AppendEvent(outputEvent(call, Channel.STDOUT, 0, first.length + second.length)),
            new AppendOutput(call, Channel.STDERR, 0, binary),
            new AppendEvent(outputEvent(call, Channel.STDERR, 0, binary.length)),
            // An event may also cover a part of what was appended.
            new AppendEvent(outputEvent(call, Channel.STDOUT, 3, 2))));
    List<Event> events = store().events(sandbox.id(), 0, 10, 1_000);
    assertThat(events).extracting(Event::seq).containsExactly(1L, 2L, 3L);
    assertThat(events).allMatch(e -> e.call().equals(Optional.of(call)));
    assertThat(events.get(0).data())
        .isEqualTo(
            body().put("channel", "stdout").put("offset", 0L).put("text", "h\u00e9l\u0000lo"));
    assertThat(events.get(1).data())
        .isEqualTo(
            body()
                .put("channel", "stderr")
                .put("offset", 0L)
                .put("base64", Base64.getEncoder().encodeToString(binary)));
    assertThat(events.get(2).data().path("text").asText()).isEqualTo("l\u0000");
  }

  @Test
  void anEventThatSplitsACharacterIsBase64() {
    Sandbox sandbox = created();
    Id call = createdCall(sandbox).id();
    byte[] e = "\u00e9".getBytes(UTF_8);
    assertCommitted(
        commit(
            sandbox.id(),
            new AppendOutput(call, Channel.STDOUT, 0, e),
            new AppendEvent(outputEvent(call, Channel.STDOUT, 0, 1)),
            new AppendEvent(outputEvent(call, Channel.STDOUT, 0, 2))));
    List<Event> events = store().events(sandbox.id(), 0, 10, 1_000);
    assertThat(events.get(0).data().has("base64")).isTrue();
    assertThat(events.get(0).data().has("text")).isFalse();
    assertThat(events.get(1).data().path("text").asText()).isEqualTo("\u00e9");
  }

  @Test
  void keepsBigRandomOutputByteForByte() {
    Sandbox sandbox = created();
    Id call = createdCall(sandbox).id();
    Random random = new Random(7);
    byte[] all = new byte[3 * 262_144 + 77];
    random.nextBytes(all);
    int at = 0;
    while (at < all.length) {
      int length = Math.min(262_144, all.length - at);
      byte[] piece = Arrays.copyOfRange(all, at, at + length);
      assertCommitted(commit(sandbox.id(), new AppendOutput(call, Channel.STDOUT, at, piece)));
      at += length;
    }
    assertCommitted(
        commit(
            sandbox.id(),
            new AppendEvent(outputEvent(call, Channel.STDOUT, 0, all.length)),
            new AppendEvent(event("after", "x"))));
    assertThat(store().output(call, Channel.STDOUT, 0, all.length)).isEqualTo(all);
    assertThat(store().output(call, Channel.STDOUT, 262_100, 100))
        .isEqualTo(Arrays.copyOfRange(all, 262_100, 262_200));
    List<Event> events = store().events(sandbox.id(), 0, 10, 1_000);
    assertThat(events).hasSize(1);
    assertThat(Base64.getDecoder().decode(events.getFirst().data().path("base64").asText()))
        .isEqualTo(all);
  }

  @Test
  void onlyOneOfTwoReadersOfASpoolWins() throws Exception {
    Sandbox sandbox = created();
    Id call = createdCall(sandbox).id();
    for (int round = 0; round < 10; round++) {
      long offset = round * 3L;
      List<CommitResult> results =
          together(
              8,
              i ->
                  commit(
                      sandbox.id(),
                      new AppendOutput(
                          call, Channel.STDOUT, offset, ("w" + i + ";").getBytes(UTF_8)),
                      new AppendEvent(outputEvent(call, Channel.STDOUT, offset, 3))));
      assertThat(results).filteredOn(r -> r instanceof CommitResult.Committed).hasSize(1);
      assertThat(results)
          .filteredOn(r -> r instanceof CommitResult.Refused)
          .allSatisfy(r -> assertRefused(r, 0, Refusal.WRONG_OFFSET));
    }
    assertThat(store().recordedBytes(call, Channel.STDOUT)).isEqualTo(30);
    assertThat(store().lastSeq(sandbox.id())).isEqualTo(10);
  }

  // Artifacts.

  @Test
  void keepsCopiedOutFiles() {
    Sandbox sandbox = created();
    Id call = createdCall(sandbox).id();
    byte[] png = {(byte) 0x89, 'P', 'N', 'G', 0};
    assertCommitted(
        commit(
            sandbox.id(),
            new SaveArtifact(call, "out/chart.png", new byte[1], "old"),
            new SaveArtifact(call, "out/chart.png", png, "s1")));
    assertCommitted(commit(sandbox.id(), new SaveArtifact(call, "a.txt", new byte[0], "s2")));
    assertThat(store().artifacts(call))
        .containsExactly(new Artifact("a.txt", 0, "s2"), new Artifact("out/chart.png", 5, "s1"));
    assertThat(store().artifact(call, "out/chart.png").orElseThrow()).isEqualTo(png);
    assertThat(store().artifact(call, "none")).isEmpty();
    assertThat(store().artifacts(ids.call())).isEmpty();
  }

  // The log.

  @Test
  void seqHasNoGapsAndPagesAreInOrder() {
    Sandbox sandbox = created();
    assertThat(store().lastSeq(sandbox.id())).isZero();
    assertThat(store().events(sandbox.id(), 0, 10, 10)).isEmpty();
    for (int i = 1; i <= 7; i++) {
      assertThat(assertCommitted(commit(sandbox.id(), new AppendEvent(event("t" + i, "n" + i)))))
          .isEqualTo(i);
    }
    assertThat(store().lastSeq(sandbox.id())).isEqualTo(7);
    List<Event> page = store().events(sandbox.id(), 2, 3, 1_000);
    assertThat(page).extracting(Event::seq).containsExactly(3L, 4L, 5L);
    assertThat(page.getFirst())
        .isEqualTo(
            new Event(3, NOW, "t3", sandbox.id(), Optional.empty(), body().put("note", "n3")));
    assertThat(store().events(sandbox.id(), 7, 3, 1_000)).isEmpty();
  }

  @Test
  void eventsKeepAnyText() {
    Sandbox sandbox = created();
    String note = "\u0000 \u001b[0m \ud83d\ude00 \"\\ \u2028 {},'";
    assertCommitted(commit(sandbox.id(), new AppendEvent(event("t", note))));
    assertThat(store().events(sandbox.id(), 0, 1, 1).getFirst().data().path("note").asText())
        .isEqualTo(note);
  }

  @Test
  void aPageEndsNearItsBytesButHasAtLeastOneEvent() {
    Sandbox sandbox = created();
    Id call = createdCall(sandbox).id();
    for (int i = 0; i < 4; i++) {
      assertCommitted(
          commit(
              sandbox.id(),
              new AppendOutput(call, Channel.STDOUT, i * 100L, new byte[100]),
              new AppendEvent(outputEvent(call, Channel.STDOUT, i * 100L, 100))));
    }
    assertThat(store().events(sandbox.id(), 0, 10, 250)).hasSize(2);
    assertThat(store().events(sandbox.id(), 2, 10, 1)).hasSize(1);
    assertThat(store().events(sandbox.id(), 0, 10, 400)).hasSize(4);
  }

  @Test
  void aPageOfLargeEventsEndsNearItsBytesToo() {
    Sandbox sandbox = created();
    for (int i = 0; i < 4; i++) {
      assertCommitted(
          commit(sandbox.id(), new AppendEvent(event("call.requested", "x".repeat(100_000)))));
    }
    assertThat(store().events(sandbox.id(), 0, 10, 150_000)).hasSize(2);
    assertThat(store().events(sandbox.id(), 2, 10, 1)).extracting(Event::seq).containsExactly(3L);
    assertThat(store().events(sandbox.id(), 0, 3, 1_000_000)).hasSize(3);
    assertThat(store().events(sandbox.id(), 4, 10, 150_000)).isEmpty();
  }

  @Test
  void aRefusedCommitLeavesNothing() {
    Sandbox sandbox = created();
    Call call = createdCall(sandbox);
    Call another = newCall(sandbox);
    IdempotencyKey key = key();
    assertRefused(
        commit(
            sandbox.id(),
            new AppendEvent(event("a", "a")),
            new StartCall(call.id(), 5, NOW),
            new AppendOutput(call.id(), Channel.STDOUT, 0, new byte[5]),
            new CreateCall(another, NO_LIMIT),
            new SaveArtifact(call.id(), "p", new byte[1], "s"),
            new ClaimKey(key, "h", Optional.empty(), NOW),
            new PatchSandbox(Optional.of(NOW), Optional.empty()),
            move(Phase.REQUESTED, Phase.READY),
            move(Phase.REQUESTED, Phase.STARTING)),
        8,
        Refusal.WRONG_PHASE);
    assertThat(store().sandbox(sandbox.id())).contains(sandbox);
    assertThat(store().call(call.id())).contains(call);
    assertThat(store().call(another.id())).isEmpty();
    assertThat(store().lastSeq(sandbox.id())).isZero();
    assertThat(store().output(call.id(), Channel.STDOUT, 0, 10)).isEmpty();
    assertThat(store().recordedBytes(call.id(), Channel.STDOUT)).isZero();
    assertThat(store().artifacts(call.id())).isEmpty();
    assertThat(store().keyedRequest(key, NOW)).isEmpty();
    // What was refused can be done afterwards, at the same offset and seq.
    assertThat(
            assertCommitted(
                commit(
                    sandbox.id(),
                    new AppendOutput(call.id(), Channel.STDOUT, 0, "ok".getBytes(UTF_8)),
                    new AppendEvent(event("b", "b")))))
        .isEqualTo(1);
  }

  @Test
  void oneRefusedCommitAmongManyHarmsNoOther() throws Exception {
    Sandbox sandbox = created();
    Call call = createdCall(sandbox);
    List<CommitResult> results =
        together(
            40,
            i -> {
              if (i % 2 == 0) {
                return commit(sandbox.id(), new AppendEvent(event("good", "" + i)));
              }
              return commit(
                  sandbox.id(),
                  new AppendEvent(event("bad", "" + i)),
                  new AppendOutput(call.id(), Channel.STDOUT, 99, new byte[1]));
            });
    for (int i = 0; i < 40; i++) {
      if (i % 2 == 0) {
        assertCommitted(results.get(i));
      } else {
        assertRefused(results.get(i), 1, Refusal.WRONG_OFFSET);
      }
    }
    List<Event> events = store().events(sandbox.id(), 0, 100, 1_000);
    assertThat(events).hasSize(20).allMatch(e -> e.type().equals("good"));
    assertThat(events)
        .extracting(Event::seq)
        .isEqualTo(LongStream.rangeClosed(1, 20).boxed().toList());
  }

  @Test
  void manyWritersMakeGapFreeLogsAndAReaderMissesNothing() throws Exception {
    List<Sandbox> logs = List.of(created(), created(), created());
    int writers = 12;
    int each = 20;
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      Future<List<Long>> reader =
          threads.submit(() -> {
            List<Long> seen = new ArrayList<>();
            long cursor = 0;
            long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
            while (seen.size() < writers * each && System.nanoTime() < until) {
              for (Event event : store().events(logs.getFirst().id(), cursor, 7, 1_000)) {
                seen.add(event.seq());
                cursor = event.seq();
              }
            }
            return seen;
          });
      together(
          writers,
          w -> {
            for (int i = 0; i < each; i++) {
              for (Sandbox log : logs) {
                assertCommitted(commit(log.id(), new AppendEvent(event("t", w + "/" + i))));
              }
            }
            return w;
          });
      assertThat(reader.get(70, TimeUnit.SECONDS))
          .isEqualTo(LongStream.rangeClosed(1, (long) writers * each).boxed().toList());
    }
    for (Sandbox log : logs) {
      assertThat(store().lastSeq(log.id())).isEqualTo((long) writers * each);
    }
  }

  // Tenants' feeds.

  /// Reads on from `after`, a page at a time, each cursor by way of its text.
  protected List<TenantEvent> follow(Id tenant, Optional<TenantCursor> after, int pageSize) {
    List<TenantEvent> all = new ArrayList<>();
    Optional<TenantCursor> cursor = after;
    while (true) {
      TenantPage page = store().tenantEvents(tenant, cursor, pageSize, 1 << 20);
      List<TenantEvent> events = events(page);
      if (events.isEmpty()) {
        return all;
      }
      all.addAll(events);
      cursor = TenantCursor.parse(events.getLast().cursor().text());
      assertThat(cursor).contains(events.getLast().cursor());
    }
  }

  protected static List<TenantEvent> events(TenantPage page) {
    assertThat(page).isInstanceOf(TenantPage.Events.class);
    return ((TenantPage.Events) page).events();
  }

  protected Sandbox createdOf(Id tenant) {
    Sandbox sandbox = newSandbox(tenant, "here");
    assertCommitted(create(sandbox));
    return sandbox;
  }

  @Test
  void aTenantsFeedHasEveryEventOfAllItsLogsOnceWhileManyCommit() throws Exception {
    Id tenant = ids.tenant();
    List<Sandbox> logs = IntStream.range(0, 8).mapToObj(_ -> createdOf(tenant)).toList();
    Sandbox foreign = created();
    int writers = 16;
    int each = 15;
    int expected = writers * each * 2;
    List<TenantEvent> seen = new ArrayList<>();
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      Future<Boolean> reader =
          threads.submit(() -> {
            Optional<TenantCursor> cursor = Optional.empty();
            long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
            while (seen.size() < expected && System.nanoTime() < until) {
              List<TenantEvent> next = follow(tenant, cursor, 7);
              seen.addAll(next);
              cursor = next.isEmpty() ? cursor : Optional.of(next.getLast().cursor());
            }
            return true;
          });
      together(
          writers,
          w -> {
            for (int i = 0; i < each; i++) {
              Id log = logs.get((w + i) % logs.size()).id();
              assertCommitted(
                  commit(
                      log,
                      new AppendEvent(event("t", w + "/" + i)),
                      new AppendEvent(event("t", w + "/" + i + "b"))));
              assertCommitted(commit(foreign.id(), new AppendEvent(event("t", "not theirs"))));
            }
            return w;
          });
      assertThat(reader.get(70, TimeUnit.SECONDS)).isTrue();
    }
    assertThat(seen).hasSize(expected);
    // Each log whole and in its own order, which leaves room for none twice.
    for (Sandbox log : logs) {
      assertThat(seen.stream().map(TenantEvent::event).filter(e -> e.sandbox().equals(log.id())))
          .isEqualTo(store().events(log.id(), 0, 1_000, 1 << 20));
    }
    // A reader that comes later sees the same order.
    assertThat(follow(tenant, Optional.empty(), 50)).isEqualTo(seen);
    assertThat(store().lastOfTenant(tenant)).contains(seen.getLast().cursor());
    int middle = expected / 2;
    assertThat(follow(tenant, Optional.of(seen.get(middle).cursor()), 1_000))
        .isEqualTo(seen.subList(middle + 1, expected));
  }

  @Test
  void aTenantsFeedJoinsOutputAndBoundsItsPages() {
    Id tenant = ids.tenant();
    Sandbox one = createdOf(tenant);
    Sandbox two = createdOf(tenant);
    for (Sandbox sandbox : List.of(one, two)) {
      Call call = createdCall(sandbox);
      assertCommitted(
          commit(
              sandbox.id(),
              new AppendOutput(call.id(), Channel.STDERR, 0, "h\u00e4".getBytes(UTF_8)),
              new AppendEvent(outputEvent(call.id(), Channel.STDERR, 0, 3))));
    }
    assertThat(follow(tenant, Optional.empty(), 10))
        .extracting(e -> e.event().data().path("text").asText())
        .containsExactly("h\u00e4", "h\u00e4");
    for (int i = 0; i < 4; i++) {
      assertCommitted(commit(one.id(), new AppendEvent(event("t", "x".repeat(1_000)))));
    }
    assertThat(events(store().tenantEvents(tenant, Optional.empty(), 100, 1))).hasSize(1);
    Optional<TenantCursor> second =
        Optional.of(follow(tenant, Optional.empty(), 10).get(1).cursor());
    assertThat(events(store().tenantEvents(tenant, second, 100, 1_500))).hasSize(2);
    assertThat(events(store().tenantEvents(tenant, second, 3, 1 << 20))).hasSize(3);
  }

  @Test
  void aTenantWithoutEventsHasAnEmptyFeed() {
    Id tenant = ids.tenant();
    assertThat(events(store().tenantEvents(tenant, Optional.empty(), 10, 1_000))).isEmpty();
    assertThat(store().lastOfTenant(tenant)).isEmpty();
    Id log = ids.sandbox();
    assertCommitted(commit(log, new AppendEvent(event("t", "of nobody"))));
    assertThat(store().lastOfTenant(tenant)).isEmpty();
  }

  /// As after a restore to a time before it, where another event has taken its place.
  @Test
  void aCursorWithoutItsEventIsLost() {
    Id tenant = ids.tenant();
    Sandbox sandbox = createdOf(tenant);
    for (int i = 0; i < 3; i++) {
      assertCommitted(commit(sandbox.id(), new AppendEvent(event("t", "" + i))));
    }
    TenantCursor real = follow(tenant, Optional.empty(), 10).get(1).cursor();
    Id other = createdOf(tenant).id();
    for (TenantCursor wrong :
        List.of(
            new TenantCursor(real.tx() + 1_000_000, real.sandbox(), real.seq(), real.time()),
            new TenantCursor(0, real.sandbox(), real.seq(), real.time()),
            new TenantCursor(real.tx(), other, real.seq(), real.time()),
            new TenantCursor(real.tx(), real.sandbox(), real.seq() + 7, real.time()),
            new TenantCursor(real.tx(), real.sandbox(), real.seq(), real.time().plusMillis(1)))) {
      assertThat(store().tenantEvents(tenant, Optional.of(wrong), 10, 1_000))
          .as(wrong.toString())
          .isInstanceOf(TenantPage.CursorLost.class);
    }
    assertThat(store().tenantEvents(ids.tenant(), Optional.of(real), 10, 1_000))
        .as("of another tenant")
        .isInstanceOf(TenantPage.CursorLost.class);
    assertThat(events(store().tenantEvents(tenant, Optional.of(real), 10, 1_000))).hasSize(1);
  }

  @Test
  void aRefusedCommitLeavesNothingInATenantsFeed() {
    Id tenant = ids.tenant();
    Sandbox sandbox = createdOf(tenant);
    assertRefused(
        commit(sandbox.id(), new AppendEvent(event("t", "n")), move(Phase.READY, Phase.GONE)),
        1,
        Refusal.WRONG_PHASE);
    Sandbox again = newSandbox(sandbox.id(), ids.tenant(), "here", Map.of());
    assertRefused(create(again), 0, Refusal.EXISTS);
    assertCommitted(commit(sandbox.id(), new AppendEvent(event("t", "kept"))));
    assertThat(follow(tenant, Optional.empty(), 10)).hasSize(1);
    assertThat(follow(again.tenant(), Optional.empty(), 10)).isEmpty();
  }

  @Test
  void wakesATenantsSubscribers() throws Exception {
    Sandbox sandbox = created();
    CountDownLatch woken = new CountDownLatch(1);
    CountDownLatch never = new CountDownLatch(1);
    try (Store.Subscription _ = store().subscribe(sandbox.tenant(), woken::countDown);
        Store.Subscription _ = store().subscribe(ids.tenant(), never::countDown)) {
      assertCommitted(commit(sandbox.id(), new AppendEvent(event("t", "n"))));
      assertThat(woken.await(10, TimeUnit.SECONDS)).isTrue();
      assertThat(never.getCount()).isEqualTo(1);
    }
  }

  @Test
  void knowsWhereACallBeginsInItsLog() {
    Sandbox sandbox = created();
    assertThat(store().logBefore(ids.call())).isZero();
    Call first = createdCall(sandbox);
    assertCommitted(commit(sandbox.id(), new AppendEvent(event("t", "1"))));
    Call second = newCall(sandbox);
    assertCommitted(
        commit(
            sandbox.id(),
            new AppendEvent(event("t", "2")),
            new CreateCall(second, NO_LIMIT),
            new AppendEvent(event("t", "3"))));
    assertThat(store().logBefore(first.id())).isZero();
    assertThat(store().logBefore(second.id())).isEqualTo(2);
    assertCommitted(commit(sandbox.id(), new StartCall(second.id(), 7, NOW)));
    assertThat(store().logBefore(second.id())).isEqualTo(2);
  }

  @Test
  void aLogNeedsNoSandbox() {
    Id log = ids.sandbox();
    assertThat(assertCommitted(commit(log, new AppendEvent(event("t", "n"))))).isEqualTo(1);
    assertThat(assertCommitted(commit(log, new AppendEvent(event("t", "n"))))).isEqualTo(2);
    assertThat(store().sandbox(log)).isEmpty();
  }

  @Test
  void anEmptyCommitSaysWhereTheLogIs() {
    Sandbox sandbox = created();
    assertThat(assertCommitted(commit(sandbox.id()))).isZero();
    assertCommitted(commit(sandbox.id(), new AppendEvent(event("t", "n"))));
    assertThat(assertCommitted(commit(sandbox.id()))).isEqualTo(1);
  }

  @Test
  void refusesACommitThatMixesSandboxes() {
    Sandbox sandbox = created();
    Sandbox other = newSandbox(ids.tenant(), "here");
    assertThatThrownBy(
            () -> commit(sandbox.id(), new CreateSandbox(other, List.of(), NO_LIMIT, NO_LIMIT)))
        .isInstanceOf(IllegalArgumentException.class);
    assertThatThrownBy(() -> commit(sandbox.id(), new CreateCall(newCall(other), NO_LIMIT)))
        .isInstanceOf(IllegalArgumentException.class);
    assertThatThrownBy(
            () -> commit(sandbox.id(), new SkipOutput(ids.call(), Channel.STDOUT, 0, -1)))
        .isInstanceOf(IllegalArgumentException.class);
  }

  @Test
  void wakesSubscribersUntilTheyClose() throws Exception {
    Sandbox sandbox = created();
    Sandbox other = created();
    CountDownLatch first = new CountDownLatch(1);
    CountDownLatch second = new CountDownLatch(1);
    CountDownLatch never = new CountDownLatch(1);
    Store.Subscription one = store().subscribe(sandbox.id(), first::countDown);
    try (Store.Subscription _ = store().subscribe(sandbox.id(), second::countDown);
        Store.Subscription _ = store().subscribe(other.id(), never::countDown)) {
      one.close();
      one.close();
      assertCommitted(commit(sandbox.id(), new AppendEvent(event("t", "n"))));
      assertThat(second.await(10, TimeUnit.SECONDS)).isTrue();
      assertThat(first.getCount()).isEqualTo(1);
      assertThat(never.getCount()).isEqualTo(1);
    }
  }

  @Test
  void aWakeThatThrowsHarmsNobody() throws Exception {
    Sandbox sandbox = created();
    CountDownLatch woken = new CountDownLatch(1);
    try (Store.Subscription _ =
            store()
                .subscribe(
                    sandbox.id(),
                    () -> {
                      throw new IllegalStateException("a subscriber's bug");
                    });
        Store.Subscription _ = store().subscribe(sandbox.id(), woken::countDown)) {
      assertCommitted(commit(sandbox.id(), new AppendEvent(event("t", "n"))));
      assertThat(woken.await(10, TimeUnit.SECONDS)).isTrue();
    }
  }

  // Idempotency keys.

  protected IdempotencyKey key() {
    return new IdempotencyKey(ids.tenant(), "POST /v1/sandboxes", "k-" + ids.key());
  }

  @Test
  void anIdempotencyKeyIsTakenFor24Hours() {
    Sandbox sandbox = created();
    Call call = createdCall(sandbox);
    IdempotencyKey key = key();
    assertThat(store().keyedRequest(key, NOW)).isEmpty();
    assertCommitted(commit(sandbox.id(), new ClaimKey(key, "h1", Optional.of(call.id()), NOW)));
    Instant late = NOW.plus(Duration.ofHours(24)).minusMillis(1);
    assertThat(store().keyedRequest(key, late))
        .contains(new KeyedRequest("h1", sandbox.id(), Optional.of(call.id())));
    assertRefused(
        commit(sandbox.id(), new ClaimKey(key, "h2", Optional.empty(), late)),
        0,
        Refusal.KEY_TAKEN);
    Instant over = NOW.plus(Duration.ofHours(24));
    assertThat(store().keyedRequest(key, over)).isEmpty();
    Sandbox next = created();
    assertCommitted(commit(next.id(), new ClaimKey(key, "h2", Optional.empty(), over)));
    assertThat(store().keyedRequest(key, over))
        .contains(new KeyedRequest("h2", next.id(), Optional.empty()));
    IdempotencyKey otherRoute = new IdempotencyKey(key.tenant(), "POST /x", key.key());
    assertThat(store().keyedRequest(otherRoute, NOW)).isEmpty();
  }

  @Test
  void oneOfManyEqualRequestsGetsTheKey() throws Exception {
    IdempotencyKey key = key();
    Id tenant = key.tenant();
    List<CommitResult> results =
        together(
            16,
            _ -> {
              Sandbox sandbox = newSandbox(tenant, "here");
              return commit(
                  sandbox.id(),
                  new ClaimKey(key, "h", Optional.empty(), NOW),
                  new CreateSandbox(sandbox, List.of(), NO_LIMIT, NO_LIMIT));
            });
    assertThat(results).filteredOn(r -> r instanceof CommitResult.Committed).hasSize(1);
    assertThat(store().sandboxes(tenant, Map.of(), Set.of(), Optional.empty(), 99)).hasSize(1);
  }

  // Tenants, keys, policies.

  @Test
  void knowsTenantsByName() {
    Id tenant = ids.tenant();
    String name = "t-" + tenant;
    store().ensureTenant(tenant, name);
    store().ensureTenant(tenant, name);
    assertThat(store().tenantNamed(name)).contains(tenant);
    store().ensureTenant(ids.tenant(), name);
    assertThat(store().tenantNamed(name)).contains(tenant);
    assertThat(store().tenantNamed("nobody")).isEmpty();
  }

  @Test
  void keepsAndRevokesKeys() {
    Id tenant = ids.tenant();
    store().ensureTenant(tenant, "t-" + tenant);
    ApiKey key =
        new ApiKey(
            ids.key(), tenant, "ci", Role.DEVELOPER, "hash-" + tenant, NOW, Optional.empty());
    store().createKey(key);
    assertThat(store().key(key.id())).contains(key);
    assertThat(store().keyByHash(key.sha256())).contains(key);
    assertThat(store().keyByHash("other")).isEmpty();
    assertThat(store().keys(tenant)).containsExactly(key);
    assertThat(store().revokeKey(ids.tenant(), key.id(), NOW)).isFalse();
    assertThat(store().revokeKey(tenant, key.id(), NOW.plusSeconds(1))).isTrue();
    assertThat(store().revokeKey(tenant, key.id(), NOW.plusSeconds(2))).isFalse();
    assertThat(store().key(key.id()).orElseThrow().revokedAt()).contains(NOW.plusSeconds(1));
    assertThat(store().keyByHash(key.sha256()).orElseThrow().revokedAt()).isPresent();
  }

  @Test
  void aPolicyVersionNeverChanges() {
    String name = "p-" + ids.key();
    store().savePolicy(name, "1", "first");
    store().savePolicy(name, "1", "second");
    store().savePolicy(name, "2", "next");
    assertThat(store().policy(name, "1")).contains("first");
    assertThat(store().policy(name, "2")).contains("next");
    assertThat(store().policy(name, "3")).isEmpty();
  }

  // Retention.

  @Test
  void retentionDropsWhatIsOldAndKeepsWhatLives() {
    Instant then = NOW.minus(Duration.ofDays(700));
    Ids old = new Ids(Clock.fixed(then, ZoneOffset.UTC), new SecureRandom());
    Id oldCall = old.call();
    Sandbox oldSandbox = oldSandbox(old.sandbox(), then);
    assertCommitted(create(oldSandbox));
    assertCommitted(writeCall(oldSandbox.id(), oldCall, then, true));
    assertCommitted(commit(oldSandbox.id(), move(Phase.REQUESTED, Phase.GONE)));
    Sandbox fresh = created();
    Id freshCall = ids.call();
    assertCommitted(writeCall(fresh.id(), freshCall, NOW, true));

    store().retain(then.plus(Duration.ofDays(60)), then.minus(Duration.ofDays(60)));
    assertThat(store().output(oldCall, Channel.STDOUT, 0, 9)).isEmpty();
    assertThat(store().call(oldCall)).isPresent();
    Event event = store().events(oldSandbox.id(), 0, 9, 99).getFirst();
    assertThat(event.data().path("missing").asInt()).isEqualTo(3);
    Optional<TenantCursor> cursor = store().lastOfTenant(oldSandbox.tenant());
    assertThat(cursor).isPresent();

    store().retain(then.plus(Duration.ofDays(60)), then.plus(Duration.ofDays(60)));
    assertThat(store().call(oldCall)).isEmpty();
    assertThat(store().events(oldSandbox.id(), 0, 9, 99)).isEmpty();
    assertThat(store().tenantEvents(oldSandbox.tenant(), cursor, 9, 99))
        .isInstanceOf(TenantPage.CursorLost.class);
    assertThat(store().lastOfTenant(oldSandbox.tenant())).isEmpty();
    assertThat(store().lastSeq(oldSandbox.id())).isEqualTo(1);

    assertThat(store().output(freshCall, Channel.STDOUT, 0, 9)).asString(UTF_8).isEqualTo("out");
    assertThat(store().events(fresh.id(), 0, 9, 99)).hasSize(1);
  }

  @Test
  void retentionSparesALiveSandboxesLogAndALiveCallsOutput() {
    Instant then = NOW.minus(Duration.ofDays(400));
    Ids old = new Ids(Clock.fixed(then, ZoneOffset.UTC), new SecureRandom());
    Sandbox sandbox = oldSandbox(old.sandbox(), then);
    Id call = old.call();
    assertCommitted(create(sandbox));
    assertCommitted(writeCall(sandbox.id(), call, then, false));
    store().retain(then.plus(Duration.ofDays(60)), then.plus(Duration.ofDays(60)));
    assertThat(store().events(sandbox.id(), 0, 9, 99)).hasSize(1);
    assertThat(store().call(call)).isPresent();
    assertThat(store().output(call, Channel.STDOUT, 0, 9)).asString(UTF_8).isEqualTo("out");
  }

  private Sandbox oldSandbox(Id id, Instant then) {
    return new Sandbox(
        id,
        ids.tenant(),
        "here",
        "host",
        new Resources(1, 1, 1, 1),
        "p@1",
        Map.of(),
        Map.of(),
        Optional.empty(),
        false,
        Phase.REQUESTED,
        "",
        "",
        then,
        then,
        Optional.empty());
  }

  private CommitResult writeCall(Id sandbox, Id call, Instant at, boolean ends) {
    Call made =
        new Call(
            call,
            sandbox,
            ids.tenant(),
            "code.run",
            "{}",
            "d",
            ids.key(),
            false,
            List.of(),
            false,
            CallStatus.PENDING,
            at,
            at,
            Optional.empty(),
            0,
            0,
            0,
            false,
            Optional.empty());
    List<Change> changes = new ArrayList<>();
    changes.add(new CreateCall(made, NO_LIMIT));
    changes.add(new AppendOutput(call, Channel.STDOUT, 0, "out".getBytes(UTF_8)));
    changes.add(new AppendEvent(outputEvent(call, Channel.STDOUT, 0, 3)));
    if (ends) {
      changes.add(new EndCall(call, exited()));
    }
    return store().commit(new Commit(sandbox, changes));
  }

  @Test
  void isHealthy() {
    assertThat(store().healthy()).isTrue();
  }

  /// Does `work` for 0 to `count - 1` at the same time and returns the results in order.
  protected static <T> List<T> together(int count, Work<T> work) throws Exception {
    CountDownLatch start = new CountDownLatch(1);
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<Future<T>> futures =
          IntStream.range(0, count)
              .mapToObj(i ->
                  threads.submit(
                      (Callable<T>)
                          () -> {
                            start.await();
                            return work.of(i);
                          }))
              .toList();
      start.countDown();
      List<T> results = new ArrayList<>();
      for (Future<T> future : futures) {
        results.add(future.get(120, TimeUnit.SECONDS));
      }
      return results;
    }
  }

  /// What [#together] does.
  protected interface Work<T> {
    T of(int index) throws Exception;
  }
}
