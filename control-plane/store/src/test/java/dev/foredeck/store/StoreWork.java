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
import dev.foredeck.core.store.Event;
import dev.foredeck.core.store.NewEvent;
import dev.foredeck.core.store.Store;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// Small pieces of work for tests of faults.
final class StoreWork {
  static final Instant NOW = Instant.parse("2026-05-04T10:11:12Z");

  private StoreWork() {}

  static Sandbox sandbox(Id id, Id tenant, Map<String, String> labels) {
    return new Sandbox(
        id,
        tenant,
        "here",
        "host",
        new Resources(1000, 1L << 30, 1L << 30, 256),
        "default@1",
        Map.of(),
        labels,
        Optional.empty(),
        false,
        Phase.REQUESTED,
        "",
        "",
        NOW,
        NOW.plusSeconds(900),
        Optional.empty());
  }

  static Commit creation(Sandbox sandbox) {
    return creation(sandbox, 1_000_000);
  }

  static Commit creation(Sandbox sandbox, int maxLive) {
    return Commit.of(
        sandbox.id(), new Change.CreateSandbox(sandbox, List.of(), maxLive, 1_000_000));
  }

  static Id created(Store store, Ids ids) {
    Sandbox sandbox = sandbox(ids.sandbox(), ids.tenant(), Map.of());
    committed(store.commit(creation(sandbox)));
    return sandbox.id();
  }

  static Call call(Ids ids, Id sandbox) {
    return new Call(
        ids.call(),
        sandbox,
        ids.tenant(),
        "process.start",
        "{}",
        "d",
        ids.key(),
        false,
        List.of(),
        false,
        CallStatus.PENDING,
        NOW,
        NOW,
        Optional.empty(),
        0,
        0,
        0,
        false,
        Optional.empty());
  }

  static Change.AppendEvent note(String note) {
    return new Change.AppendEvent(
        new NewEvent(
            NOW,
            "note",
            Optional.empty(),
            JsonNodeFactory.instance.objectNode().put("note", note)));
  }

  static void committed(CommitResult result) {
    if (!(result instanceof CommitResult.Committed)) {
      throw new AssertionError(result.toString());
    }
  }

  static List<Event> log(Store store, Id sandbox) {
    List<Event> all = new ArrayList<>();
    while (true) {
      long after = all.isEmpty() ? 0 : all.getLast().seq();
      List<Event> page = store.events(sandbox, after, 1_000, 1 << 20);
      if (page.isEmpty()) {
        return all;
      }
      all.addAll(page);
    }
  }
}
