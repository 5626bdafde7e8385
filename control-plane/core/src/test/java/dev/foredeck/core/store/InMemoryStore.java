package dev.foredeck.core.store;

import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Id;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallResult;
import dev.foredeck.core.gate.CallStatus;
import dev.foredeck.core.pool.WarmSandbox;
import dev.foredeck.core.sandbox.InlineFile;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Change.Refusal;
import dev.foredeck.protocol.Channel;
import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Comparator;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// The whole port in memory, for unit tests and crash simulations: a crash of the control plane is
/// dropping every other object and keeping this one. Thread-safe: one lock around all state, hooks
/// and wakes outside it.
///
/// Invariant: a refused commit leaves no trace (changes are undone in reverse order).
public final class InMemoryStore implements Store {
  private static final Logger LOG = LoggerFactory.getLogger(InMemoryStore.class);
  private static final Duration KEY_LIFE = Duration.ofHours(24);

  /// Watches commits. What it throws reaches the committer: thrown before, nothing has happened;
  /// thrown after, the commit is durable and its caller does not know.
  public interface CommitHook {
    CommitHook NONE = new CommitHook() {};

    default void before(Commit commit) {}

    default void after(Commit commit, CommitResult result) {}
  }

  private final ReentrantLock lock = new ReentrantLock();
  private final Map<Id, Sandbox> sandboxes = new TreeMap<>(Comparator.reverseOrder());
  private final Map<Id, WarmSandbox> warm = new TreeMap<>();
  private final Map<Id, List<InlineFile>> files = new HashMap<>();
  private final Map<Id, Call> calls = new TreeMap<>();
  private final Map<Id, Long> lastSeqs = new HashMap<>();
  private final Map<Id, List<StoredEvent>> logs = new HashMap<>();
  private final Map<Id, List<TenantCursor>> logsOfTenant = new HashMap<>();
  private final Map<Id, Long> logBefore = new HashMap<>();
  private long commits;
  private final Map<OutputOf, Output> outputs = new HashMap<>();
  private final Map<Id, Map<String, StoredArtifact>> artifacts = new HashMap<>();
  private final Map<IdempotencyKey, StoredKey> keys = new HashMap<>();
  private final Map<String, Id> tenants = new HashMap<>();
  private final Map<Id, ApiKey> apiKeys = new TreeMap<>();
  private final Map<String, String> policies = new HashMap<>();
  private final Map<Id, CopyOnWriteArrayList<Runnable>> subscribers = new HashMap<>();

  private volatile CommitHook hook = CommitHook.NONE;
  private volatile boolean unavailable;

  private record StoredEvent(long seq, NewEvent event) {}

  private record OutputOf(Id call, Channel channel) {}

  /// Chunks by offset.
  ///
  /// @param readable bytes from 0 without a hole
  private record Output(TreeMap<Long, byte[]> chunks, long readable) {}

  private record StoredArtifact(Artifact artifact, byte[] bytes) {}

  private record StoredKey(KeyedRequest request, Instant at) {}

  /// Replaces the hook around every commit.
  public void hook(CommitHook next) {
    hook = next;
  }

  /// While true every method throws [StoreUnavailableException] and nothing happens.
  public void unavailable(boolean now) {
    unavailable = now;
  }

  /// What a crash of the control plane does to its subscriptions.
  public void forgetSubscribers() {
    lock.lock();
    try {
      subscribers.clear();
    } finally {
      lock.unlock();
    }
  }

  @Override
  public CommitResult commit(Commit commit) {
    checkAvailable();
    hook.before(commit);
    CommitResult result;
    List<Runnable> wakes = List.of();
    lock.lock();
    try {
      result = new Application(commit).run();
      if (result instanceof CommitResult.Committed) {
        wakes =
            Stream.concat(
                    Stream.of(commit.sandbox()),
                    Stream.ofNullable(sandboxes.get(commit.sandbox())).map(Sandbox::tenant))
                .flatMap(id -> subscribers.getOrDefault(id, new CopyOnWriteArrayList<>()).stream())
                .toList();
      }
    } finally {
      lock.unlock();
    }
    for (Runnable wake : wakes) {
      try {
        wake.run();
      } catch (RuntimeException e) {
        LOG.warn("a subscriber of {} failed", commit.sandbox(), e);
      }
    }
    hook.after(commit, result);
    return result;
  }

  /// One commit being applied, with how to undo what is done so far.
  private final class Application {
    private final Commit commit;
    private final Deque<Runnable> undo = new ArrayDeque<>();

    private Application(Commit commit) {
      this.commit = commit;
    }

    CommitResult run() {
      commits++;
      try {
        for (int i = 0; i < commit.changes().size(); i++) {
          Change change = commit.changes().get(i);
          Optional<Refusal> refusal = apply(change);
          if (refusal.isPresent()) {
            rollBack();
            return new CommitResult.Refused(i, change, refusal.get());
          }
        }
      } catch (RuntimeException e) {
        rollBack();
        throw e;
      }
      return new CommitResult.Committed(lastSeqs.getOrDefault(commit.sandbox(), 0L));
    }

    private void rollBack() {
      while (!undo.isEmpty()) {
        undo.pop().run();
      }
    }

    private <K, V> void put(Map<K, V> map, K key, V value) {
      V old = map.put(key, value);
      undo.push(() -> restore(map, key, old));
    }

    private <K, V> void remove(Map<K, V> map, K key) {
      V old = map.remove(key);
      undo.push(() -> restore(map, key, old));
    }

    private <K, V> void restore(Map<K, V> map, K key, @Nullable V old) {
      if (old == null) {
        map.remove(key);
      } else {
        map.put(key, old);
      }
    }

    private Optional<Refusal> apply(Change change) {
      return switch (change) {
        case Change.CreateSandbox c -> createSandbox(c);
        case Change.MoveSandbox c -> moveSandbox(c);
        case Change.PatchSandbox c -> patchSandbox(c);
        case Change.ForgetFiles _ -> {
          remove(files, commit.sandbox());
          yield Optional.empty();
        }
        case Change.CreateCall c -> createCall(c);
        case Change.StartCall c -> startCall(c);
        case Change.AppendOutput c -> appendOutput(c);
        case Change.SkipOutput c -> skipOutput(c);
        case Change.SaveArtifact c -> saveArtifact(c);
        case Change.EndCall c -> endCall(c);
        case Change.AppendEvent c -> appendEvent(c.event());
        case Change.ClaimKey c -> claimKey(c);
        case Change.AddWarm c -> addWarm(c);
        case Change.MoveWarm c -> moveWarm(c);
        case Change.TakeWarm c -> takeWarm(c);
      };
    }

    private Optional<Refusal> addWarm(Change.AddWarm c) {
      if (!c.warm().id().equals(commit.sandbox())) {
        throw new IllegalArgumentException("the commit is of another sandbox");
      }
      if (warm.containsKey(c.warm().id())) {
        return Optional.of(Refusal.EXISTS);
      }
      put(warm, c.warm().id(), c.warm());
      return Optional.empty();
    }

    private Optional<Refusal> moveWarm(Change.MoveWarm c) {
      WarmSandbox w = warm.get(commit.sandbox());
      if (w == null || !c.from().contains(w.state())) {
        return Optional.of(Refusal.TAKEN);
      }
      put(warm, w.id(), w.moved(c.to(), c.bootId(), c.at()));
      return Optional.empty();
    }

    private Optional<Refusal> takeWarm(Change.TakeWarm c) {
      WarmSandbox w = warm.get(commit.sandbox());
      if (w == null || w.state() != c.from()) {
        return Optional.of(Refusal.TAKEN);
      }
      remove(warm, w.id());
      return Optional.empty();
    }

    private Optional<Refusal> createSandbox(Change.CreateSandbox c) {
      Sandbox made = c.sandbox();
      if (!made.id().equals(commit.sandbox())) {
        throw new IllegalArgumentException("the commit is of another sandbox");
      }
      if (sandboxes.containsKey(made.id())) {
        return Optional.of(Refusal.EXISTS);
      }
      if (!made.phase().terminal()) {
        long ofTenant = live().filter(s -> s.tenant().equals(made.tenant())).count();
        long ofOwner = live().filter(s -> s.owner().equals(made.owner())).count();
        if (ofTenant >= c.maxLiveOfTenant() || ofOwner >= c.maxLiveOfOwner()) {
          return Optional.of(Refusal.QUOTA);
        }
      }
      put(sandboxes, made.id(), made);
      put(files, made.id(), c.files());
      return Optional.empty();
    }

    private Optional<Refusal> moveSandbox(Change.MoveSandbox c) {
      Sandbox s = sandboxes.get(commit.sandbox());
      if (s == null || !c.from().contains(s.phase())) {
        return Optional.of(Refusal.WRONG_PHASE);
      }
      put(
          sandboxes,
          s.id(),
          new Sandbox(
              s.id(),
              s.tenant(),
              s.owner(),
              s.template(),
              s.resources(),
              s.policy(),
              s.env(),
              s.labels(),
              s.networkAllow(),
              s.destroyOnExit(),
              c.to(),
              c.reason(),
              c.bootId().orElse(s.bootId()),
              s.createdAt(),
              s.expiresAt(),
              c.to().terminal() ? Optional.of(c.at()) : s.endedAt()));
      return Optional.empty();
    }

    private Optional<Refusal> patchSandbox(Change.PatchSandbox c) {
      Sandbox s = sandboxes.get(commit.sandbox());
      if (s == null || s.phase() == Phase.STOPPING || s.phase().terminal()) {
        return Optional.of(Refusal.WRONG_PHASE);
      }
      put(
          sandboxes,
          s.id(),
          new Sandbox(
              s.id(),
              s.tenant(),
              s.owner(),
              s.template(),
              s.resources(),
              s.policy(),
              s.env(),
              c.labels().orElse(s.labels()),
              s.networkAllow(),
              s.destroyOnExit(),
              s.phase(),
              s.reason(),
              s.bootId(),
              s.createdAt(),
              c.expiresAt().orElse(s.expiresAt()),
              s.endedAt()));
      return Optional.empty();
    }

    private Optional<Refusal> createCall(Change.CreateCall c) {
      Call made = c.call();
      if (!made.sandbox().equals(commit.sandbox())) {
        throw new IllegalArgumentException("the call is of another sandbox");
      }
      if (calls.containsKey(made.id())) {
        return Optional.of(Refusal.EXISTS);
      }
      Sandbox s = sandboxes.get(commit.sandbox());
      if (s == null) {
        return Optional.of(Refusal.WRONG_PHASE);
      }
      if (!made.status().ended()) {
        if (s.phase() == Phase.STOPPING || s.phase().terminal()) {
          return Optional.of(Refusal.WRONG_PHASE);
        }
        long live = liveCallsOf(s.id()).count();
        if (live >= c.maxLiveOfSandbox()) {
          return Optional.of(Refusal.QUOTA);
        }
      }
      put(calls, made.id(), made);
      put(logBefore, made.id(), lastSeqs.getOrDefault(commit.sandbox(), 0L));
      return Optional.empty();
    }

    private Optional<Call> ours(Id call) {
      return Optional.ofNullable(calls.get(call))
          .filter(found -> found.sandbox().equals(commit.sandbox()));
    }

    private Optional<Refusal> startCall(Change.StartCall c) {
      Optional<Call> call = ours(c.call()).filter(found -> found.status() == CallStatus.PENDING);
      if (call.isEmpty()) {
        return Optional.of(Refusal.ENDED);
      }
      put(
          calls,
          c.call(),
          changed(
              call.get(),
              CallStatus.RUNNING,
              Optional.of(c.at()),
              c.pid(),
              call.get().stdoutBytes(),
              call.get().stderrBytes(),
              call.get().truncated(),
              Optional.empty()));
      return Optional.empty();
    }

    private Optional<Refusal> appendOutput(Change.AppendOutput c) {
      Optional<Refusal> refusal =
          advance(c.call(), c.channel(), c.offset(), c.bytes().length, false);
      if (refusal.isPresent() || c.bytes().length == 0) {
        return refusal;
      }
      OutputOf key = new OutputOf(c.call(), c.channel());
      Output old = outputs.getOrDefault(key, new Output(new TreeMap<>(), 0));
      TreeMap<Long, byte[]> chunks = old.chunks();
      put(chunks, c.offset(), c.bytes().clone());
      long readable = old.readable() == c.offset() ? c.offset() + c.bytes().length : old.readable();
      put(outputs, key, new Output(chunks, readable));
      return refusal;
    }

    private Optional<Refusal> skipOutput(Change.SkipOutput c) {
      if (c.length() < 0) {
        throw new IllegalArgumentException("skipped length is negative");
      }
      return advance(c.call(), c.channel(), c.offset(), c.length(), true);
    }

    private Optional<Refusal> advance(
        Id id, Channel channel, long offset, long length, boolean truncates) {
      Optional<Call> found = ours(id).filter(call -> !call.status().ended());
      if (found.isEmpty()) {
        return Optional.of(Refusal.ENDED);
      }
      Call call = found.get();
      boolean stderr = channel == Channel.STDERR;
      if (offset != (stderr ? call.stderrBytes() : call.stdoutBytes())) {
        return Optional.of(Refusal.WRONG_OFFSET);
      }
      put(
          calls,
          id,
          changed(
              call,
              call.status(),
              call.startedAt(),
              call.pid(),
              stderr ? call.stdoutBytes() : offset + length,
              stderr ? offset + length : call.stderrBytes(),
              truncates || call.truncated(),
              call.result()));
      return Optional.empty();
    }

    private Optional<Refusal> saveArtifact(Change.SaveArtifact c) {
      put(
          artifacts.computeIfAbsent(c.call(), _ -> new TreeMap<>()),
          c.path(),
          new StoredArtifact(
              new Artifact(c.path(), c.bytes().length, c.sha256()), c.bytes().clone()));
      return Optional.empty();
    }

    private Optional<Refusal> endCall(Change.EndCall c) {
      Optional<Call> found = ours(c.call()).filter(call -> !call.status().ended());
      if (found.isEmpty()) {
        return Optional.of(Refusal.ENDED);
      }
      Call call = found.get();
      put(
          calls,
          c.call(),
          changed(
              call,
              c.result().status(),
              call.startedAt(),
              call.pid(),
              call.stdoutBytes(),
              call.stderrBytes(),
              call.truncated(),
              Optional.of(c.result())));
      return Optional.empty();
    }

    private Optional<Refusal> appendEvent(NewEvent event) {
      long seq = lastSeqs.getOrDefault(commit.sandbox(), 0L) + 1;
      put(lastSeqs, commit.sandbox(), seq);
      List<StoredEvent> log = logs.computeIfAbsent(commit.sandbox(), _ -> new ArrayList<>());
      log.add(
          new StoredEvent(
              seq,
              new NewEvent(event.time(), event.type(), event.call(), event.data().deepCopy())));
      undo.push(log::removeLast);
      Sandbox s = sandboxes.get(commit.sandbox());
      if (s != null) {
        List<TenantCursor> order = logsOfTenant.computeIfAbsent(s.tenant(), _ -> new ArrayList<>());
        order.add(new TenantCursor(commits, s.id(), seq, event.time()));
        undo.push(order::removeLast);
      }
      return Optional.empty();
    }

    private Optional<Refusal> claimKey(Change.ClaimKey c) {
      StoredKey old = keys.get(c.key());
      if (old != null && young(old, c.at())) {
        return Optional.of(Refusal.KEY_TAKEN);
      }
      put(
          keys,
          c.key(),
          new StoredKey(new KeyedRequest(c.bodyHash(), commit.sandbox(), c.call()), c.at()));
      return Optional.empty();
    }
  }

  private static Call changed(
      Call call,
      CallStatus status,
      Optional<Instant> startedAt,
      long pid,
      long stdoutBytes,
      long stderrBytes,
      boolean truncated,
      Optional<CallResult> result) {
    return new Call(
        call.id(),
        call.sandbox(),
        call.tenant(),
        call.tool(),
        call.arguments(),
        call.digest(),
        call.principal(),
        call.background(),
        call.outputs(),
        call.destroysSandbox(),
        status,
        call.requestedAt(),
        call.deadline(),
        startedAt,
        pid,
        stdoutBytes,
        stderrBytes,
        truncated,
        result);
  }

  private static boolean young(StoredKey key, Instant now) {
    return key.at().plus(KEY_LIFE).isAfter(now);
  }

  private Stream<Sandbox> live() {
    return sandboxes.values().stream().filter(s -> !s.phase().terminal());
  }

  private Stream<Call> liveCallsOf(Id sandbox) {
    return calls.values().stream()
        .filter(call -> call.sandbox().equals(sandbox) && !call.status().ended());
  }

  private void checkAvailable() {
    if (unavailable) {
      throw new StoreUnavailableException(
          "the database does not answer", new IllegalStateException("made unavailable by a test"));
    }
  }

  private <T> T read(Supplier<T> reading) {
    checkAvailable();
    lock.lock();
    try {
      return reading.get();
    } finally {
      lock.unlock();
    }
  }

  @Override
  public Optional<Sandbox> sandbox(Id id) {
    return read(() -> Optional.ofNullable(sandboxes.get(id)));
  }

  @Override
  public List<Sandbox> sandboxes(
      Id tenant, Map<String, String> labels, Set<Phase> phases, Optional<Id> after, int limit) {
    return read(() ->
        sandboxes.values().stream()
            .filter(s -> s.tenant().equals(tenant))
            .filter(s -> s.labels().entrySet().containsAll(labels.entrySet()))
            .filter(s -> phases.isEmpty() || phases.contains(s.phase()))
            .filter(s -> after.isEmpty() || s.id().compareTo(after.get()) < 0)
            .limit(limit)
            .toList());
  }

  @Override
  public List<Sandbox> liveSandboxes(String owner) {
    return read(() ->
        live()
            .filter(s -> s.owner().equals(owner))
            .sorted(Comparator.comparing(Sandbox::id))
            .toList());
  }

  @Override
  public Optional<WarmSandbox> warmSandbox(Id id) {
    return read(() -> Optional.ofNullable(warm.get(id)));
  }

  @Override
  public List<WarmSandbox> warmSandboxes(String owner) {
    return read(() -> warm.values().stream().filter(w -> w.owner().equals(owner)).toList());
  }

  @Override
  public List<InlineFile> files(Id sandbox) {
    return read(() -> files.getOrDefault(sandbox, List.of()));
  }

  @Override
  public Optional<Call> call(Id id) {
    return read(() -> Optional.ofNullable(calls.get(id)));
  }

  @Override
  public List<Call> liveCalls(Id sandbox) {
    return read(() -> liveCallsOf(sandbox).toList());
  }

  @Override
  public List<Event> events(Id sandbox, long afterSeq, int maxEvents, int maxBytes) {
    return read(() -> {
      List<Event> page = new ArrayList<>();
      long bytes = 0;
      long dataBytes = 0;
      for (StoredEvent stored : logs.getOrDefault(sandbox, List.of())) {
        if (stored.seq() <= afterSeq) {
          continue;
        }
        long length = outputLength(stored.event());
        if (page.size() >= maxEvents
            || (!page.isEmpty() && (bytes + length > maxBytes || dataBytes >= maxBytes))) {
          break;
        }
        bytes += length;
        dataBytes += stored.event().data().toString().length();
        page.add(event(sandbox, stored));
      }
      return List.copyOf(page);
    });
  }

  private Event event(Id sandbox, StoredEvent stored) {
    return new Event(
        stored.seq(),
        stored.event().time(),
        stored.event().type(),
        sandbox,
        stored.event().call(),
        joined(stored.event()));
  }

  @Override
  public TenantPage tenantEvents(
      Id tenant, Optional<TenantCursor> after, int maxEvents, int maxBytes) {
    return read(() -> {
      List<TenantEvent> kept =
          logsOfTenant.getOrDefault(tenant, List.of()).stream()
              .flatMap(cursor ->
                  logs.getOrDefault(cursor.sandbox(), List.of()).stream()
                      .filter(stored -> stored.seq() == cursor.seq())
                      .map(stored -> new TenantEvent(cursor, event(cursor.sandbox(), stored))))
              .toList();
      int from = 0;
      if (after.isPresent()) {
        from = kept.stream().map(TenantEvent::cursor).toList().indexOf(after.get()) + 1;
        if (from == 0) {
          return new TenantPage.CursorLost();
        }
      }
      List<TenantEvent> page = new ArrayList<>();
      long bytes = 0;
      for (TenantEvent next : kept.subList(from, kept.size())) {
        if (page.size() >= maxEvents || (!page.isEmpty() && bytes >= maxBytes)) {
          break;
        }
        bytes += next.event().data().toString().length();
        page.add(next);
      }
      return new TenantPage.Events(page);
    });
  }

  @Override
  public Optional<TenantCursor> lastOfTenant(Id tenant) {
    return read(() ->
        logsOfTenant.getOrDefault(tenant, List.of()).reversed().stream()
            .filter(cursor -> logs.containsKey(cursor.sandbox()))
            .findFirst());
  }

  @Override
  public long logBefore(Id call) {
    return read(() -> logBefore.getOrDefault(call, 0L));
  }

  private static long outputLength(NewEvent event) {
    return event.type().equals("output") ? event.data().path("length").asLong() : 0;
  }

  private ObjectNode joined(NewEvent event) {
    if (!event.type().equals("output") || event.call().isEmpty()) {
      return event.data().deepCopy();
    }
    String name = event.data().path("channel").asText();
    long offset = event.data().path("offset").asLong();
    int length = Math.toIntExact(event.data().path("length").asLong());
    byte[] bytes = bytes(event.call().get(), channel(name), offset, length);
    ObjectNode body = JsonNodeFactory.instance.objectNode();
    body.put("channel", name);
    body.put("offset", offset);
    try {
      body.put(
          "text", StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString());
    } catch (CharacterCodingException _) {
      body.put("base64", Base64.getEncoder().encodeToString(bytes));
    }
    if (bytes.length < length) {
      body.put("missing", length - bytes.length);
    }
    return body;
  }

  private static Channel channel(String wireName) {
    for (Channel channel : Channel.values()) {
      if (channel.wireName().equals(wireName)) {
        return channel;
      }
    }
    throw new IllegalArgumentException("no such channel: " + wireName);
  }

  @Override
  public long lastSeq(Id sandbox) {
    return read(() -> lastSeqs.getOrDefault(sandbox, 0L));
  }

  @Override
  public byte[] output(Id call, Channel channel, long offset, int maxBytes) {
    return read(() -> bytes(call, channel, offset, maxBytes));
  }

  private byte[] bytes(Id call, Channel channel, long offset, int maxBytes) {
    ByteArrayOutputStream found = new ByteArrayOutputStream();
    Output output = outputs.get(new OutputOf(call, channel));
    if (output == null) {
      return new byte[0];
    }
    long at = offset;
    while (found.size() < maxBytes) {
      Map.Entry<Long, byte[]> chunk = output.chunks().floorEntry(at);
      if (chunk == null || chunk.getKey() + chunk.getValue().length <= at) {
        break;
      }
      int from = (int) (at - chunk.getKey());
      int count = Math.min(chunk.getValue().length - from, maxBytes - found.size());
      found.write(chunk.getValue(), from, count);
      at += count;
    }
    return found.toByteArray();
  }

  @Override
  public long recordedBytes(Id call, Channel channel) {
    return read(() -> {
      Output output = outputs.get(new OutputOf(call, channel));
      return output == null ? 0 : output.readable();
    });
  }

  @Override
  public List<Artifact> artifacts(Id call) {
    return read(() ->
        artifacts.getOrDefault(call, Map.of()).values().stream()
            .map(StoredArtifact::artifact)
            .toList());
  }

  @Override
  public Optional<byte[]> artifact(Id call, String path) {
    return read(() ->
        Optional.ofNullable(artifacts.getOrDefault(call, Map.of()).get(path))
            .map(stored -> stored.bytes().clone()));
  }

  @Override
  public Optional<KeyedRequest> keyedRequest(IdempotencyKey key, Instant now) {
    return read(() ->
        Optional.ofNullable(keys.get(key))
            .filter(stored -> young(stored, now))
            .map(StoredKey::request));
  }

  @Override
  public Subscription subscribe(Id grows, Runnable wake) {
    checkAvailable();
    // A wrapper, so that closing one of two equal subscriptions leaves the other.
    Runnable own =
        new Runnable() {
          @Override
          public void run() {
            wake.run();
          }
        };
    lock.lock();
    try {
      subscribers.computeIfAbsent(grows, _ -> new CopyOnWriteArrayList<>()).add(own);
    } finally {
      lock.unlock();
    }
    return () -> {
      lock.lock();
      try {
        CopyOnWriteArrayList<Runnable> list = subscribers.get(grows);
        if (list != null && list.remove(own) && list.isEmpty()) {
          subscribers.remove(grows);
        }
      } finally {
        lock.unlock();
      }
    };
  }

  @Override
  public void ensureTenant(Id tenant, String name) {
    read(() -> tenants.putIfAbsent(name, tenant) == null);
  }

  @Override
  public Optional<Id> tenantNamed(String name) {
    return read(() -> Optional.ofNullable(tenants.get(name)));
  }

  @Override
  public void createKey(ApiKey key) {
    read(() -> apiKeys.put(key.id(), key) == null);
  }

  @Override
  public Optional<ApiKey> keyByHash(String sha256) {
    return read(
        () -> apiKeys.values().stream().filter(key -> key.sha256().equals(sha256)).findFirst());
  }

  @Override
  public Optional<ApiKey> key(Id id) {
    return read(() -> Optional.ofNullable(apiKeys.get(id)));
  }

  @Override
  public List<ApiKey> keys(Id tenant) {
    return read(
        () -> apiKeys.values().stream().filter(key -> key.tenant().equals(tenant)).toList());
  }

  @Override
  public boolean revokeKey(Id tenant, Id key, Instant at) {
    return read(() -> {
      ApiKey found = apiKeys.get(key);
      if (found == null || !found.tenant().equals(tenant) || found.revokedAt().isPresent()) {
        return false;
      }
      apiKeys.put(
          key,
          new ApiKey(
              found.id(),
              found.tenant(),
              found.name(),
              found.role(),
              found.sha256(),
              found.createdAt(),
              Optional.of(at)));
      return true;
    });
  }

  @Override
  public void savePolicy(String name, String version, String bundle) {
    read(() -> policies.putIfAbsent(name + "@" + version, bundle) == null);
  }

  @Override
  public Optional<String> policy(String name, String version) {
    return read(() -> Optional.ofNullable(policies.get(name + "@" + version)));
  }

  /// By each thing's own time; other stores drop whole partitions and so may keep a little more.
  @Override
  public void retain(Instant outputBefore, Instant eventsBefore) {
    read(() -> {
      for (Call call : List.copyOf(calls.values())) {
        if (!call.status().ended()) {
          continue;
        }
        if (call.requestedAt().isBefore(outputBefore)) {
          outputs.keySet().removeIf(key -> key.call().equals(call.id()));
          artifacts.remove(call.id());
        }
        if (call.requestedAt().isBefore(eventsBefore)) {
          calls.remove(call.id());
        }
      }
      for (Sandbox sandbox : sandboxes.values()) {
        if (sandbox.phase().terminal() && sandbox.createdAt().isBefore(eventsBefore)) {
          logs.remove(sandbox.id());
        }
      }
      return true;
    });
  }

  @Override
  public boolean healthy() {
    return !unavailable;
  }

  /// Keeps everything: what closes a store of a process is that process's end.
  @Override
  public void close() {
    forgetSubscribers();
  }
}
