package dev.foredeck.server;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Events;
import dev.foredeck.core.Hashes;
import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.Json;
import dev.foredeck.core.Keys;
import dev.foredeck.core.Operation;
import dev.foredeck.core.Principal;
import dev.foredeck.core.Problem;
import dev.foredeck.core.ProblemException;
import dev.foredeck.core.Resources;
import dev.foredeck.core.Role;
import dev.foredeck.core.feed.Feeds;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallResult;
import dev.foredeck.core.gate.CallStatus;
import dev.foredeck.core.gate.Calls;
import dev.foredeck.core.gate.ToolCall;
import dev.foredeck.core.pool.PoolKey;
import dev.foredeck.core.pool.PoolSize;
import dev.foredeck.core.pool.Pools;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.ProvisionRequest;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.sandbox.Sandboxes;
import dev.foredeck.core.store.Event;
import dev.foredeck.core.store.NewEvent;
import dev.foredeck.core.store.Store.ApiKey;
import dev.foredeck.core.store.TenantCursor;
import dev.foredeck.core.store.TenantEvent;
import dev.foredeck.policy.Boundary;
import dev.foredeck.protocol.Channel;
import dev.foredeck.protocol.Message.FileInfo;
import dev.foredeck.protocol.Message.FileKind;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.random.RandomGenerator;
import java.util.random.RandomGeneratorFactory;

/// The four interfaces behind the edge, in memory: enough of their contracts for the edge's tests,
/// with a fixed clock and seeded ids so that answers are golden. One lock guards everything.
final class FakeCore {
  static final Instant NOW = Instant.parse("2026-01-02T03:04:05.678Z");
  static final String OPERATOR = "operator-key";
  static final String DEVELOPER = "developer-key";
  static final String STRANGER = "stranger-key";
  static final String OTHER_OPERATOR = "other-operator-key";

  final ReentrantLock lock = new ReentrantLock();
  final Condition changed = lock.newCondition();
  final Ids ids;
  final Id tenant;
  final Id otherTenant;
  final Map<String, Principal> principals = new LinkedHashMap<>();
  final Set<String> revoked = new HashSet<>();
  final Map<Id, Sandbox> sandboxes = new LinkedHashMap<>();
  final Map<Id, Call> calls = new LinkedHashMap<>();
  final Map<Id, byte[]> stdout = new HashMap<>();
  final Map<Id, byte[]> stderr = new HashMap<>();
  final Map<Id, Map<String, byte[]>> outputs = new HashMap<>();
  final Map<Id, List<Event>> logs = new HashMap<>();
  final Map<String, byte[]> files = new TreeMap<>();
  final Map<String, Made> made = new HashMap<>();
  final List<Operation> operations = new ArrayList<>();
  final List<ProvisionRequest> requests = new ArrayList<>();
  final List<ToolCall.Run> runs = new ArrayList<>();
  final List<String> signals = new ArrayList<>();
  final List<Event> everything = new ArrayList<>();
  int openFeeds;
  int mostFeeds = 1_000;
  int abortedUploads;

  /// What a run prints and copies out; ends at once unless `held`.
  volatile byte[] prints = "hello\n".getBytes(java.nio.charset.StandardCharsets.UTF_8);

  volatile byte[] complains = new byte[0];
  volatile int exitCode;
  volatile boolean held;

  /// Whether a file is shorter when it is read than it was said to be.
  volatile boolean shrinks;

  volatile Optional<RuntimeException> fails = Optional.empty();

  record Made(String bodyHash, Id sandbox, Optional<Id> call) {}

  FakeCore() {
    RandomGenerator random = RandomGeneratorFactory.of("L64X128MixRandom").create(7);
    ids = new Ids(Clock.fixed(NOW, ZoneOffset.UTC), random);
    tenant = ids.tenant();
    otherTenant = ids.tenant();
    principals.put(OPERATOR, new Principal(tenant, ids.key(), "root", Role.OPERATOR));
    principals.put(DEVELOPER, new Principal(tenant, ids.key(), "dev", Role.DEVELOPER));
    principals.put(STRANGER, new Principal(otherTenant, ids.key(), "eve", Role.DEVELOPER));
    principals.put(OTHER_OPERATOR, new Principal(otherTenant, ids.key(), "mallory", Role.OPERATOR));
  }

  // ---- what tests do

  void append(Id sandbox, NewEvent event) {
    lock.lock();
    try {
      List<Event> log = logs.computeIfAbsent(sandbox, _ -> new ArrayList<>());
      log.add(
          new Event(
              log.size() + 1L, event.time(), event.type(), sandbox, event.call(), event.data()));
      everything.add(log.getLast());
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  void move(Id sandbox, Phase phase) {
    lock.lock();
    try {
      Sandbox old = sandboxOf(sandbox);
      sandboxes.put(
          sandbox,
          new Sandbox(
              old.id(),
              old.tenant(),
              old.owner(),
              old.template(),
              old.resources(),
              old.policy(),
              old.env(),
              old.labels(),
              old.networkAllow(),
              old.destroyOnExit(),
              phase,
              old.reason(),
              old.bootId(),
              old.createdAt(),
              old.expiresAt(),
              phase.terminal() ? Optional.of(NOW) : Optional.empty()));
      append(sandbox, Events.phase(NOW, phase, ""));
    } finally {
      lock.unlock();
    }
  }

  /// Runs a held call to its end.
  void finish(Id id) {
    lock.lock();
    try {
      Call call = callOf(id);
      Id sandbox = call.sandbox();
      append(sandbox, Events.started(NOW, id, 42));
      if (prints.length > 0) {
        ObjectNode data = Json.object().put("channel", "stdout").put("offset", 0);
        Encode.textOrBase64(data, "text", "base64", prints);
        append(sandbox, new NewEvent(NOW, "output", Optional.of(id), data));
      }
      stdout.put(id, prints);
      stderr.put(id, complains);
      for (String path : call.outputs()) {
        byte[] bytes = outputs.getOrDefault(id, files).get(path);
        append(
            sandbox,
            bytes == null
                ? Events.missing(NOW, id, path, "no such file")
                : Events.copiedOut(
                    NOW, id, path, bytes.length, Hashes.sha256(bytes), Optional.of(bytes)));
      }
      CallResult result =
          new CallResult(
              CallStatus.EXITED, exitCode, 0, "", 12_345, 6_789_000, 99, prints.length, NOW);
      calls.put(id, with(call, CallStatus.EXITED, Optional.of(result)));
      append(sandbox, Events.ended(id, result));
      if (call.destroysSandbox()) {
        move(sandbox, Phase.STOPPING);
        move(sandbox, Phase.GONE);
      }
    } finally {
      lock.unlock();
    }
  }

  private Call with(Call call, CallStatus status, Optional<CallResult> result) {
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
        Optional.of(NOW),
        42,
        prints.length,
        complains.length,
        false,
        result);
  }

  /// What a door asked last.
  Operation lastOperation() {
    lock.lock();
    try {
      return operations.getLast();
    } finally {
      lock.unlock();
    }
  }

  /// Waits until what a test waits for is so.
  void await(java.util.function.BooleanSupplier so) throws InterruptedException {
    lock.lock();
    try {
      long nanos = TimeUnit.SECONDS.toNanos(20);
      while (!so.getAsBoolean()) {
        if (nanos <= 0) {
          throw new AssertionError("waited for 20 s");
        }
        nanos = Math.min(nanos, changed.awaitNanos(TimeUnit.MILLISECONDS.toNanos(20)) + nanos);
        nanos -= TimeUnit.MILLISECONDS.toNanos(20);
      }
    } finally {
      lock.unlock();
    }
  }

  Sandbox sandboxOf(Id id) {
    return Objects.requireNonNull(sandboxes.get(id));
  }

  Call callOf(Id id) {
    return Objects.requireNonNull(calls.get(id));
  }

  private List<Event> logOf(Id sandbox) {
    return Objects.requireNonNull(logs.get(sandbox));
  }

  private void asked(Operation operation) {
    lock.lock();
    try {
      operations.add(operation);
    } finally {
      lock.unlock();
    }
    if (fails.isPresent()) {
      throw fails.get();
    }
  }

  private Sandbox own(Operation operation, Id id) {
    asked(operation);
    Sandbox sandbox = sandboxes.get(id);
    if (sandbox == null || !sandbox.tenant().equals(operation.principal().tenant())) {
      throw new ProblemException(
          new Problem.NotFound("sandbox-not-found", "there is no sandbox " + id));
    }
    return sandbox;
  }

  private Call ownCall(Operation operation, Id id) {
    asked(operation);
    Call call = calls.get(id);
    if (call == null || !call.tenant().equals(operation.principal().tenant())) {
      throw new ProblemException(new Problem.NotFound("call-not-found", "there is no call " + id));
    }
    return call;
  }

  private Optional<Made> known(Operation operation) {
    Optional<Operation.Idempotency> key = operation.idempotency();
    if (key.isEmpty()) {
      return Optional.empty();
    }
    Made before = made.get(key.get().route() + " " + key.get().key());
    if (before != null && !before.bodyHash().equals(key.get().bodyHash())) {
      throw new ProblemException(
          new Problem.Conflict("idempotency-mismatch", "this key came with another body"));
    }
    return Optional.ofNullable(before);
  }

  private Call newCall(
      Operation operation,
      Id sandbox,
      ToolCall.Run run,
      boolean background,
      List<String> wanted,
      boolean destroys) {
    runs.add(run);
    Call call =
        new Call(
            ids.call(),
            sandbox,
            operation.principal().tenant(),
            run.tool(),
            "{}",
            "d1",
            operation.principal().key(),
            background,
            wanted,
            destroys,
            CallStatus.PENDING,
            NOW,
            NOW.plusSeconds(60),
            Optional.empty(),
            0,
            0,
            0,
            false,
            Optional.empty());
    calls.put(call.id(), call);
    append(sandbox, Events.requested(call, Json.object(), operation.principal()));
    return call;
  }

  // ---- the interfaces

  final Keys keys =
      new Keys() {
        @Override
        public Principal authenticate(String secret) {
          Principal principal = principals.get(secret);
          if (principal == null || revoked.contains(secret)) {
            throw new ProblemException(new Problem.Unauthenticated("unknown " + secret));
          }
          return principal;
        }

        @Override
        public Created create(Operation operation, String name, Role role) {
          asked(operation);
          Id id = ids.key();
          principals.put("secret-of-" + name, new Principal(tenant, id, name, role));
          return new Created(
              new ApiKey(id, tenant, name, role, "00", NOW, Optional.empty()), "secret-of-" + name);
        }

        @Override
        public List<ApiKey> list(Operation operation) {
          asked(operation);
          return principals.values().stream()
              .filter(p -> p.tenant().equals(operation.principal().tenant()))
              .map(p ->
                  new ApiKey(p.key(), p.tenant(), p.name(), p.role(), "00", NOW, Optional.empty()))
              .toList();
        }

        @Override
        public void revoke(Operation operation, Id key) {
          asked(operation);
          lock.lock();
          try {
            String secret =
                principals.entrySet().stream()
                    .filter(e -> e.getValue().key().equals(key))
                    .filter(e -> e.getValue().tenant().equals(operation.principal().tenant()))
                    .map(Map.Entry::getKey)
                    .findFirst()
                    .orElseThrow(() ->
                        new ProblemException(
                            new Problem.NotFound("key-not-found", "there is no such key")));
            revoked.add(secret);
            changed.signalAll();
          } finally {
            lock.unlock();
          }
        }
      };

  final Pools pools =
      operation -> {
        asked(operation);
        Instant then = NOW.minusSeconds(9);
        return List.of(
            new Pools.State(
                new PoolKey("host", new Resources(500, 1L << 28, 1L << 26, 64), Boundary.NONE),
                "default@1",
                new PoolSize(1, 4),
                2,
                1,
                1,
                3.4567,
                new Pools.Tally(12, 3, 14, 2),
                Optional.of(new Pools.Failure("runc failed", then))),
            new Pools.State(
                new PoolKey("host", new Resources(500, 1L << 28, 1L << 26, 64), Boundary.NONE),
                "default@1",
                new PoolSize(0, 1),
                0,
                0,
                0,
                0,
                Pools.Tally.NOTHING,
                Optional.empty()));
      };

  final Sandboxes doorSandboxes =
      new Sandboxes() {
        @Override
        public Provisioned create(Operation operation, ProvisionRequest request) {
          asked(operation);
          lock.lock();
          try {
            requests.add(request);
            Optional<Made> before = known(operation);
            if (before.isPresent()) {
              return new Provisioned(
                  sandboxOf(before.get().sandbox()),
                  before.get().call().map(FakeCore.this::callOf));
            }
            boolean destroys = request.destroyOnExit().orElse(request.run().isPresent());
            Sandbox sandbox =
                new Sandbox(
                    ids.sandbox(),
                    operation.principal().tenant(),
                    "replica",
                    request.template().orElse("host"),
                    new Resources(
                        request.cpuMillis().orElse(1000),
                        request.memoryBytes().orElse(1L << 30),
                        request.diskBytes().orElse(2L << 30),
                        256),
                    "default@1",
                    request.env(),
                    request.labels(),
                    request.networkAllow(),
                    destroys,
                    Phase.REQUESTED,
                    "",
                    "",
                    NOW,
                    NOW.plus(request.ttl().orElse(Duration.ofMinutes(15))),
                    Optional.empty());
            sandboxes.put(sandbox.id(), sandbox);
            append(sandbox.id(), Events.phase(NOW, Phase.REQUESTED, ""));
            Optional<Call> call =
                request
                    .run()
                    .map(run ->
                        newCall(operation, sandbox.id(), run, false, request.outputs(), destroys));
            operation
                .idempotency()
                .ifPresent(key ->
                    made.put(
                        key.route() + " " + key.key(),
                        new Made(key.bodyHash(), sandbox.id(), call.map(Call::id))));
            request.files().forEach(file -> files.put(file.path(), file.bytes()));
            if (!held) {
              move(sandbox.id(), Phase.STARTING);
              move(sandbox.id(), Phase.READY);
              call.ifPresent(c -> finish(c.id()));
            }
            return new Provisioned(sandbox, call);
          } finally {
            lock.unlock();
          }
        }

        @Override
        public Sandbox get(Operation operation, Id sandbox) {
          return own(operation, sandbox);
        }

        @Override
        public List<Sandbox> list(
            Operation operation,
            Map<String, String> labels,
            Set<Phase> phases,
            Optional<Id> after,
            int limit) {
          asked(operation);
          return sandboxes.values().stream()
              .filter(s -> s.tenant().equals(operation.principal().tenant()))
              .filter(s -> s.labels().entrySet().containsAll(labels.entrySet()))
              .filter(s -> phases.isEmpty() || phases.contains(s.phase()))
              .filter(s -> after.isEmpty() || s.id().compareTo(after.get()) < 0)
              .sorted(Comparator.comparing(Sandbox::id).reversed())
              .limit(limit)
              .toList();
        }

        @Override
        public Sandbox patch(
            Operation operation,
            Id sandbox,
            Optional<Duration> ttl,
            Optional<Map<String, String>> labels) {
          Sandbox old = own(operation, sandbox);
          Sandbox patched =
              new Sandbox(
                  old.id(),
                  old.tenant(),
                  old.owner(),
                  old.template(),
                  old.resources(),
                  old.policy(),
                  old.env(),
                  labels.orElse(old.labels()),
                  old.networkAllow(),
                  old.destroyOnExit(),
                  old.phase(),
                  old.reason(),
                  old.bootId(),
                  old.createdAt(),
                  ttl.map(NOW::plus).orElse(old.expiresAt()),
                  old.endedAt());
          sandboxes.put(sandbox, patched);
          return patched;
        }

        @Override
        public Sandbox destroy(Operation operation, Id sandbox) {
          if (!own(operation, sandbox).phase().terminal()) {
            move(sandbox, Phase.STOPPING);
          }
          return sandboxOf(sandbox);
        }

        @Override
        public Sandbox awaitReady(Operation operation, Id sandbox, Duration timeout) {
          return own(operation, sandbox);
        }

        @Override
        public Sandbox awaitEnd(Operation operation, Id sandbox, Duration timeout) {
          return own(operation, sandbox);
        }
      };

  final Calls doorCalls =
      new Calls() {
        @Override
        public Call start(
            Operation operation,
            Id sandbox,
            ToolCall.Run run,
            boolean background,
            List<String> wanted) {
          own(operation, sandbox);
          lock.lock();
          try {
            Optional<Made> before = known(operation);
            if (before.isPresent()) {
              return callOf(before.get().call().orElseThrow());
            }
            Call call = newCall(operation, sandbox, run, background, wanted, false);
            operation
                .idempotency()
                .ifPresent(key ->
                    made.put(
                        key.route() + " " + key.key(),
                        new Made(key.bodyHash(), sandbox, Optional.of(call.id()))));
            if (!held) {
              finish(call.id());
            }
            return callOf(call.id());
          } finally {
            lock.unlock();
          }
        }

        @Override
        public Call get(Operation operation, Id call) {
          return ownCall(operation, call);
        }

        @Override
        public Call awaitEnd(Operation operation, Call seen, Duration timeout) {
          Id call = seen.id();
          ownCall(operation, call);
          lock.lock();
          try {
            long nanos = timeout.toNanos();
            while (!callOf(call).status().ended() && nanos > 0) {
              nanos = changed.awaitNanos(nanos);
            }
            return callOf(call);
          } catch (InterruptedException e) {
            throw new IllegalStateException(e);
          } finally {
            lock.unlock();
          }
        }

        @Override
        public OutputPage output(
            Operation operation, Id call, Channel channel, long offset, int maxBytes) {
          Call known = ownCall(operation, call);
          byte[] all =
              (channel == Channel.STDOUT ? stdout : stderr).getOrDefault(call, new byte[0]);
          int from = (int) Math.min(offset, all.length);
          int to = (int) Math.min((long) from + Math.min(maxBytes, 300_000), all.length);
          return new OutputPage(
              Arrays.copyOfRange(all, from, to),
              offset,
              all.length,
              all.length,
              known.status().ended());
        }

        @Override
        public List<Output> outputs(Operation operation, Id call) {
          return ownCall(operation, call).outputs().stream()
              .map(path -> {
                byte[] bytes = files.get(path);
                return bytes == null
                    ? new Output(path, 0, "", Optional.of("no such file"))
                    : new Output(path, bytes.length, Hashes.sha256(bytes), Optional.empty());
              })
              .toList();
        }

        @Override
        public byte[] outputFile(Operation operation, Id call, String path) {
          ownCall(operation, call);
          return file(path);
        }

        @Override
        public long stdin(
            Operation operation, Id call, Optional<Long> offset, byte[] bytes, boolean end) {
          ownCall(operation, call);
          lock.lock();
          try {
            byte[] old = stdout.getOrDefault(call, new byte[0]);
            byte[] joined = Arrays.copyOf(old, old.length + bytes.length);
            System.arraycopy(bytes, 0, joined, old.length, bytes.length);
            stdout.put(call, joined);
            return joined.length;
          } finally {
            lock.unlock();
          }
        }

        @Override
        public void signal(Operation operation, Id call, String signal) {
          ownCall(operation, call);
          signals.add(signal);
        }

        @Override
        public Call cancel(Operation operation, Id call) {
          return ownCall(operation, call);
        }

        @Override
        public Download readFile(Operation operation, Id sandbox, String path) {
          own(operation, sandbox);
          if (directory(path)) {
            throw new ProblemException(
                new Problem.Conflict("not-a-file", path + " is a directory"));
          }
          byte[] bytes = file(path);
          int length = shrinks ? bytes.length / 2 : bytes.length;
          return new Download(ids.call(), info(path), new ByteArrayInputStream(bytes, 0, length));
        }

        @Override
        public FileInfo writeFile(
            Operation operation, Id sandbox, String path, long size, InputStream content) {
          own(operation, sandbox);
          try {
            byte[] bytes = content.readAllBytes();
            files.put(path, bytes);
            return info(path);
          } catch (IOException e) {
            lock.lock();
            try {
              abortedUploads++;
              changed.signalAll();
            } finally {
              lock.unlock();
            }
            throw new UncheckedIOException(e);
          }
        }

        @Override
        public Listing listFiles(Operation operation, Id sandbox, String path, int depth) {
          own(operation, sandbox);
          String prefix = path.isEmpty() ? "" : path + "/";
          return new Listing(
              files.keySet().stream()
                  .filter(f -> f.startsWith(prefix))
                  .map(FakeCore.this::info)
                  .toList(),
              false);
        }

        @Override
        public FileInfo statFile(Operation operation, Id sandbox, String path) {
          own(operation, sandbox);
          return info(path);
        }

        @Override
        public void removeFile(Operation operation, Id sandbox, String path, boolean recursive) {
          own(operation, sandbox);
          file(path);
          files.remove(path);
        }

        @Override
        public void moveFile(Operation operation, Id sandbox, String path, String target) {
          own(operation, sandbox);
          files.put(target, file(path));
          files.remove(path);
        }
      };

  private boolean directory(String path) {
    return path.isEmpty() || files.keySet().stream().anyMatch(f -> f.startsWith(path + "/"));
  }

  private byte[] file(String path) {
    byte[] bytes = files.get(path);
    if (bytes == null) {
      throw new ProblemException(
          new Problem.NotFound("file-not-found", "there is no " + path + " in the workspace"));
    }
    return bytes;
  }

  private FileInfo info(String path) {
    if (directory(path)) {
      return new FileInfo(path, FileKind.DIRECTORY, 4096, 0755, NOW.toEpochMilli());
    }
    return new FileInfo(path, FileKind.FILE, file(path).length, 0644, NOW.toEpochMilli());
  }

  final Feeds feeds =
      new Feeds() {
        @Override
        public List<Event> page(Operation operation, Id sandbox, long after, int limit) {
          own(operation, sandbox);
          return logOf(sandbox).stream().filter(e -> e.seq() > after).limit(limit).toList();
        }

        @Override
        public TenantLogPage tenantPage(
            Operation operation, Optional<TenantCursor> after, Set<String> types, int limit) {
          asked(operation);
          List<TenantEvent> events =
              tenantEvents(operation.principal(), after).stream()
                  .filter(e -> types.isEmpty() || types.contains(e.event().type()))
                  .limit(limit)
                  .toList();
          return new TenantLogPage(
              events, events.isEmpty() ? after : Optional.of(events.getLast().cursor()));
        }

        @Override
        public Optional<TenantCursor> last(Operation operation) {
          List<TenantEvent> all = tenantEvents(operation.principal(), Optional.empty());
          return all.isEmpty() ? Optional.empty() : Optional.of(all.getLast().cursor());
        }

        @Override
        public Place reserve(Operation operation) {
          asked(operation);
          lock.lock();
          try {
            if (openFeeds >= mostFeeds) {
              throw new ProblemException(
                  new Problem.Capacity("feed-quota", "too many feeds", Duration.ofSeconds(5)));
            }
            openFeeds++;
          } finally {
            lock.unlock();
          }
          return new FakePlace(operation);
        }

        @Override
        public Feed<TenantEvent> openTenant(Operation operation, Optional<TenantCursor> after) {
          tenantEvents(operation.principal(), after);
          try (FakePlace place = (FakePlace) reserve(operation)) {
            return place.kept(new FakeTenantFeed(operation.principal(), after));
          }
        }
      };

  /// All of a tenant's events by time of appending.
  private List<TenantEvent> tenantEvents(Principal principal, Optional<TenantCursor> after) {
    lock.lock();
    try {
      List<TenantEvent> all = new ArrayList<>();
      for (Event event : everything) {
        if (sandboxOf(event.sandbox()).tenant().equals(principal.tenant())) {
          all.add(
              new TenantEvent(
                  new TenantCursor(all.size(), event.sandbox(), event.seq(), event.time()), event));
        }
      }
      if (after.isEmpty()) {
        return all;
      }
      int at = all.stream().map(TenantEvent::cursor).toList().indexOf(after.get());
      if (at < 0) {
        throw new ProblemException(new Problem.Conflict("cursor-lost", "no such event"));
      }
      return all.subList(at + 1, all.size());
    } finally {
      lock.unlock();
    }
  }

  private final class FakePlace implements Feeds.Place {
    private final Operation operation;
    private boolean taken;

    FakePlace(Operation operation) {
      this.operation = operation;
    }

    @Override
    public Feeds.Feed<Event> open(Id sandbox, long after) {
      own(operation, sandbox);
      return kept(new FakeFeed(operation.principal(), sandbox, after));
    }

    @Override
    public Feeds.Feed<Event> openCall(Id sandbox, Id call) {
      long before =
          logOf(sandbox).stream()
              .filter(e -> e.call().filter(call::equals).isPresent())
              .mapToLong(e -> e.seq() - 1)
              .findFirst()
              .orElse(0);
      return open(sandbox, before);
    }

    <E> Feeds.Feed<E> kept(Feeds.Feed<E> feed) {
      taken = true;
      return feed;
    }

    @Override
    public void close() {
      lock.lock();
      try {
        if (!taken) {
          taken = true;
          openFeeds--;
          changed.signalAll();
        }
      } finally {
        lock.unlock();
      }
    }
  }

  /// Waits, hears of a revoked key, frees its place once.
  private abstract class FakeReader<E> implements Feeds.Feed<E> {
    private final Principal principal;
    private boolean closed;

    FakeReader(Principal principal) {
      this.principal = principal;
    }

    abstract List<E> read();

    @Override
    public List<E> next(Duration timeout) throws InterruptedException {
      lock.lock();
      try {
        long nanos = timeout.toNanos();
        while (true) {
          if (closed) {
            return List.of();
          }
          List<E> events = read();
          if (!events.isEmpty() || nanos <= 0) {
            return events;
          }
          if (revoked.stream().anyMatch(s -> principal.equals(principals.get(s)))) {
            throw new ProblemException(new Problem.Unauthenticated("revoked"));
          }
          nanos = changed.awaitNanos(nanos);
        }
      } finally {
        lock.unlock();
      }
    }

    @Override
    public void close() {
      lock.lock();
      try {
        if (!closed) {
          closed = true;
          openFeeds--;
          changed.signalAll();
        }
      } finally {
        lock.unlock();
      }
    }
  }

  private final class FakeTenantFeed extends FakeReader<TenantEvent> {
    private final Principal principal;
    private Optional<TenantCursor> after;

    FakeTenantFeed(Principal principal, Optional<TenantCursor> after) {
      super(principal);
      this.principal = principal;
      this.after = after;
    }

    @Override
    List<TenantEvent> read() {
      List<TenantEvent> events = tenantEvents(principal, after).stream().limit(100).toList();
      after = events.isEmpty() ? after : Optional.of(events.getLast().cursor());
      return events;
    }

    @Override
    public boolean finished() {
      return false;
    }
  }

  private final class FakeFeed extends FakeReader<Event> {
    private final Id sandbox;
    private long after;

    FakeFeed(Principal principal, Id sandbox, long after) {
      super(principal);
      this.sandbox = sandbox;
      this.after = after;
    }

    @Override
    List<Event> read() {
      List<Event> events = logOf(sandbox).stream().filter(e -> e.seq() > after).limit(100).toList();
      after += events.size();
      return events;
    }

    @Override
    public boolean finished() {
      lock.lock();
      try {
        return sandboxOf(sandbox).phase().terminal() && logOf(sandbox).size() <= after;
      } finally {
        lock.unlock();
      }
    }
  }
}
