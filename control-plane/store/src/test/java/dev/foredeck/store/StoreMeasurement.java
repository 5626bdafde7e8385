package dev.foredeck.store;

import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.Resources;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallStatus;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
import dev.foredeck.core.store.NewEvent;
import dev.foredeck.core.store.Store;
import dev.foredeck.protocol.Channel;
import java.security.SecureRandom;
import java.time.Clock;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/// Measures what the store costs on this machine; not a test, because a timed test is a flaky one.
/// Run as [JooqGeneration] is.
public final class StoreMeasurement {
  private static final int CHUNK = 262_144;

  private final Store store;
  private final Ids ids = new Ids(Clock.fixed(StoreWork.NOW, ZoneOffset.UTC), new SecureRandom());

  private StoreMeasurement(Store store) {
    this.store = store;
  }

  public static void main(String[] args) throws Exception {
    try (TestDatabase database = TestDatabase.start();
        Store store =
            PostgresStore.open(
                database.url(), new SecureRandom(), Clock.fixed(StoreWork.NOW, ZoneOffset.UTC))) {
      StoreMeasurement measurement = new StoreMeasurement(store);
      measurement.events(1, 2_000, "warm-up");
      measurement.calls(1, 1_000, "warm-up");
      measurement.events(1, 4_000, "event");
      measurement.calls(1, 500, "call + 2 events");
      measurement.events(32, 1_000, "event");
      measurement.calls(32, 100, "call + 2 events");
      measurement.output(1, 400);
      measurement.output(4, 200);
    }
  }

  private Sandbox sandbox() {
    Instant now = Instant.now();
    Sandbox sandbox =
        new Sandbox(
            ids.sandbox(),
            ids.tenant(),
            "here",
            "host",
            new Resources(1000, 1L << 30, 1L << 30, 256),
            "default@1",
            Map.of(),
            Map.of(),
            Optional.empty(),
            false,
            Phase.REQUESTED,
            "",
            "",
            now,
            now.plusSeconds(900),
            Optional.empty());
    done(
        store.commit(
            Commit.of(
                sandbox.id(), new Change.CreateSandbox(sandbox, List.of(), 1_000, 1_000_000))));
    return sandbox;
  }

  private Call call(Sandbox sandbox) {
    Instant now = Instant.now();
    return new Call(
        ids.call(),
        sandbox.id(),
        sandbox.tenant(),
        "process.start",
        "{\"argv\":[\"echo\",\"hello\"]}",
        "d",
        ids.key(),
        false,
        List.of(),
        false,
        CallStatus.PENDING,
        now,
        now,
        Optional.empty(),
        0,
        0,
        0,
        false,
        Optional.empty());
  }

  private static NewEvent event(String type, Optional<Id> call) {
    return new NewEvent(
        Instant.now(),
        type,
        call,
        JsonNodeFactory.instance
            .objectNode()
            .put("tool", "process.start")
            .put("arguments", "{\"argv\":[\"echo\",\"hello\"]}")
            .put("effect", "allow")
            .put("policy", "default@1"));
  }

  private static void done(CommitResult result) {
    if (!(result instanceof CommitResult.Committed)) {
      throw new IllegalStateException(result.toString());
    }
  }

  private interface Work {
    void once(Sandbox sandbox);
  }

  private void run(String what, int writers, int each, Work work) throws Exception {
    List<Long> nanos = new ArrayList<>();
    long start;
    long end;
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<Sandbox> sandboxes = new ArrayList<>();
      for (int w = 0; w < writers; w++) {
        sandboxes.add(sandbox());
      }
      start = System.nanoTime();
      List<Future<long[]>> futures = new ArrayList<>();
      for (Sandbox sandbox : sandboxes) {
        futures.add(
            threads.submit(() -> {
              long[] own = new long[each];
              for (int i = 0; i < each; i++) {
                long t = System.nanoTime();
                work.once(sandbox);
                own[i] = System.nanoTime() - t;
              }
              return own;
            }));
      }
      for (Future<long[]> future : futures) {
        Arrays.stream(future.get()).forEach(nanos::add);
      }
      end = System.nanoTime();
    }
    nanos.sort(null);
    System.out.printf(
        "%-24s writers %2d  n %6d  %8.0f /s  p50 %7.3f ms  p99 %7.3f ms%n",
        what,
        writers,
        nanos.size(),
        nanos.size() / ((end - start) / 1e9),
        nanos.get(nanos.size() / 2) / 1e6,
        nanos.get((int) (nanos.size() * 0.99)) / 1e6);
  }

  private void events(int writers, int each, String what) throws Exception {
    run(
        what,
        writers,
        each,
        sandbox ->
            done(
                store.commit(
                    Commit.of(
                        sandbox.id(),
                        new Change.AppendEvent(event("call.started", Optional.empty()))))));
  }

  /// What the gate records of a decision.
  private void calls(int writers, int each, String what) throws Exception {
    run(
        what,
        writers,
        each,
        sandbox -> {
          Call call = call(sandbox);
          Optional<Id> id = Optional.of(call.id());
          done(
              store.commit(
                  Commit.of(
                      sandbox.id(),
                      new Change.CreateCall(call, 1_000_000),
                      new Change.AppendEvent(event("call.requested", id)),
                      new Change.AppendEvent(event("call.decided", id)))));
        });
  }

  private void output(int writers, int each) throws Exception {
    byte[] bytes = new byte[CHUNK];
    new Random(1).nextBytes(bytes);
    long start = System.nanoTime();
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<Future<?>> futures = new ArrayList<>();
      for (int w = 0; w < writers; w++) {
        Sandbox sandbox = sandbox();
        Call call = call(sandbox);
        done(store.commit(Commit.of(sandbox.id(), new Change.CreateCall(call, 10))));
        futures.add(
            threads.submit(() -> {
              for (int i = 0; i < each; i++) {
                long offset = (long) i * CHUNK;
                NewEvent event =
                    new NewEvent(
                        Instant.now(),
                        "output",
                        Optional.of(call.id()),
                        JsonNodeFactory.instance
                            .objectNode()
                            .put("channel", "stdout")
                            .put("offset", offset)
                            .put("length", CHUNK));
                done(
                    store.commit(
                        Commit.of(
                            sandbox.id(),
                            new Change.AppendOutput(call.id(), Channel.STDOUT, offset, bytes),
                            new Change.AppendEvent(event))));
              }
            }));
      }
      for (Future<?> future : futures) {
        future.get();
      }
    }
    double seconds = (System.nanoTime() - start) / 1e9;
    System.out.printf(
        "output of %d KiB chunks   writers %2d  %6.1f MB/s%n",
        CHUNK >> 10, writers, (double) writers * each * CHUNK / seconds / 1e6);
  }
}
