package dev.foredeck.core.gate;

import dev.foredeck.core.Events;
import dev.foredeck.core.Id;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Operation;
import dev.foredeck.core.Patience;
import dev.foredeck.core.Policies;
import dev.foredeck.core.Problem;
import dev.foredeck.core.ProblemException;
import dev.foredeck.core.Signals;
import dev.foredeck.core.Tenancy;
import dev.foredeck.core.Waits;
import dev.foredeck.core.driver.Driver.AgentConnection;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
import dev.foredeck.core.store.NewEvent;
import dev.foredeck.core.store.Store;
import dev.foredeck.core.store.Store.Artifact;
import dev.foredeck.core.store.Store.StoreUnavailableException;
import dev.foredeck.policy.Policy;
import dev.foredeck.protocol.Channel;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Message.EndCause;
import dev.foredeck.protocol.Message.FileInfo;
import dev.foredeck.protocol.Message.FileKind;
import dev.foredeck.protocol.Wire.MalformedMessageException;
import java.io.IOException;
import java.io.InputStream;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Function;
import java.util.stream.Collectors;

/// The gate: the only code that performs tool calls. Decides by policy, records, performs, records
/// again. Thread-safe; holds nothing that a crash may not take.
public final class Gate implements Calls {
  private static final String FAULT = "a fault of the control plane";
  private static final int TEXT_BYTES = dev.foredeck.protocol.Limits.CHUNK_BYTES;

  private final Store store;
  private final Agents agents;
  private final Policies policies;
  private final Recorder recorder;
  private final CallStarter starter;
  private final Clock clock;
  private final Limits limits;
  private final Patience patience;
  private final Map<Id, StdinTurn> stdinTurns = new ConcurrentHashMap<>();

  public Gate(
      Store store,
      Agents agents,
      Policies policies,
      Recorder recorder,
      CallStarter starter,
      Clock clock,
      Limits limits) {
    this(store, agents, policies, recorder, starter, clock, limits, Patience.DEFAULT);
  }

  public Gate(
      Store store,
      Agents agents,
      Policies policies,
      Recorder recorder,
      CallStarter starter,
      Clock clock,
      Limits limits,
      Patience patience) {
    this.store = store;
    this.agents = agents;
    this.policies = policies;
    this.recorder = recorder;
    this.starter = starter;
    this.clock = clock;
    this.limits = limits;
    this.patience = patience;
  }

  @Override
  public Call start(
      Operation operation,
      Id sandboxId,
      ToolCall.Run run,
      boolean background,
      List<String> outputs) {
    Sandbox sandbox = sandbox(operation, sandboxId);
    Optional<Call> earlier = earlier(operation);
    if (earlier.isPresent()) {
      return earlier.get();
    }
    Begun begun = decide(operation, sandbox, run, background, outputs);
    if (!begun.earlier()) {
      starter.callAdded(sandbox, begun.call());
    }
    return begun.call();
  }

  @Override
  public Call get(Operation operation, Id id) {
    return Tenancy.call(store, operation, id);
  }

  @Override
  public Call awaitEnd(Operation operation, Call call, Duration timeout) {
    Id id = call.id();
    Call seen = Tenancy.call(operation, id, Optional.of(call));
    if (seen.status().ended()) {
      return seen;
    }
    return Waits.until(
            store, seen.sandbox(), timeout, () -> store.call(id).filter(c -> c.status().ended()))
        .orElseGet(() -> get(operation, id));
  }

  @Override
  public OutputPage output(Operation operation, Id id, Channel channel, long offset, int maxBytes) {
    Call call = get(operation, id);
    long total =
        switch (channel) {
          case STDOUT -> call.stdoutBytes();
          case STDERR -> call.stderrBytes();
          case PTY -> 0;
        };
    byte[] bytes = store.output(id, channel, offset, maxBytes);
    return new OutputPage(
        bytes, offset, store.recordedBytes(id, channel), total, call.status().ended());
  }

  @Override
  public List<Output> outputs(Operation operation, Id id) {
    Call call = get(operation, id);
    Map<String, Artifact> there =
        store.artifacts(id).stream().collect(Collectors.toMap(Artifact::path, a -> a));
    List<Output> outputs = new ArrayList<>();
    for (String path : call.outputs()) {
      Artifact artifact = there.get(path);
      outputs.add(
          artifact == null
              ? new Output(path, 0, "", Optional.of(missing(call)))
              : new Output(path, artifact.sizeBytes(), artifact.sha256(), Optional.empty()));
    }
    return outputs;
  }

  private static String missing(Call call) {
    return call.status().ended()
        ? "it was not there, not a file or too large when the call ended; the call.output event"
            + " says which"
        : "the call has not ended";
  }

  @Override
  public byte[] outputFile(Operation operation, Id id, String path) {
    get(operation, id);
    return store
        .artifact(id, path)
        .orElseThrow(() ->
            new ProblemException(
                new Problem.NotFound(
                    "output-not-found", "the call has no copied-out file '" + path + "'")));
  }

  @Override
  public long stdin(Operation operation, Id id, Optional<Long> offset, byte[] bytes, boolean end) {
    Call asked = get(operation, id);
    // One writer at a time for a call: without an offset the end is asked for, then written to.
    StdinTurn turn = enterStdin(id);
    try {
      Optional<StdinKey> key = StdinKey.of(store, clock, operation, asked);
      Optional<Long> bound = key.flatMap(StdinKey::bound);
      if (bound.isPresent() && key.filter(StdinKey::isWritten).isPresent()) {
        return bound.get() + bytes.length;
      }
      Call call = running(operation, id);
      if (!ToolCalls.runOf(call.tool(), call.arguments()).stdin()) {
        throw new ProblemException(
            new Problem.Conflict(
                "stdin-closed",
                "the call was started without stdin: start it with \"stdin\": true"));
      }
      long from = bound.or(() -> offset).orElseGet(() -> writeStdin(call, 0, new byte[0], false));
      if (key.isEmpty()) {
        return appendStdin(call, from, bytes, end);
      }
      long at = key.get().bind(from);
      long _ = appendStdin(call, at, bytes, end);
      key.get().written();
      return at + bytes.length;
    } finally {
      leaveStdin(id, turn);
    }
  }

  private long appendStdin(Call call, long from, byte[] bytes, boolean end) {
    long inAll = 0;
    long at = from;
    int sent = 0;
    do {
      int n = Math.min(TEXT_BYTES, bytes.length - sent);
      byte[] piece = java.util.Arrays.copyOfRange(bytes, sent, sent + n);
      sent += n;
      long accepted = writeStdin(call, at, piece, end && sent == bytes.length);
      if (accepted < at + n) {
        throw new ProblemException(
            new Problem.Conflict(
                "wrong-offset",
                "stdin has " + accepted + " bytes; " + at + " is not where the next one goes"));
      }
      at += n;
      inAll = accepted;
    } while (sent < bytes.length);
    return inAll;
  }

  /// Who writes to one call's stdin, and how many wait for it: gone when nobody does.
  private static final class StdinTurn {
    private final ReentrantLock lock = new ReentrantLock();
    private int holders;
  }

  private StdinTurn enterStdin(Id call) {
    StdinTurn turn =
        stdinTurns.compute(
            call,
            (_, there) -> {
              StdinTurn one = there == null ? new StdinTurn() : there;
              one.holders++;
              return one;
            });
    turn.lock.lock();
    return turn;
  }

  private void leaveStdin(Id call, StdinTurn turn) {
    turn.lock.unlock();
    stdinTurns.computeIfPresent(call, (_, there) -> --there.holders == 0 ? null : there);
  }

  private long writeStdin(Call call, long offset, byte[] bytes, boolean end) {
    Message answer =
        ask(call.sandbox(), new Message.WriteStdin(call.id().value(), offset, bytes, end));
    return switch (answer) {
      case Message.StdinAck ack -> ack.offset();
      case Message.Failure failure -> throw new ProblemException(problem(failure));
      case Message other -> throw misbehaved(other);
    };
  }

  @Override
  public void signal(Operation operation, Id id, String signal) {
    int number =
        Signals.number(signal)
            .orElseThrow(() ->
                new ProblemException(
                    Problem.Invalid.of(
                        "/signal",
                        "bad-value",
                        "'" + signal + "' is not a signal: one of " + Signals.names())));
    Call target = get(operation, id);
    if (earlier(operation).isEmpty()) {
      Call _ = running(operation, id);
    }
    boolean _ =
        perform(
            operation,
            sandbox(operation, target.sandbox()),
            new ToolCall.ProcessSignal(id, signal),
            call ->
                switch (ask(target.sandbox(), new Message.Signal(id.value(), number))) {
                  case Message.Done _ -> new Performed<>(true, List.of());
                  case Message.Failure failure -> throw new ProblemException(problem(failure));
                  case Message other -> throw misbehaved(other);
                },
            earlier -> succeeded(operation, earlier));
  }

  @Override
  public Call cancel(Operation operation, Id id) {
    Call call = get(operation, id);
    claim(operation, call);
    if (call.status() == CallStatus.PENDING) {
      Instant now = clock.instant();
      CallResult result =
          new CallResult(CallStatus.CANCELLED, -1, 0, "cancelled before it ran", 0, 0, 0, 0, now);
      if (endPending(call, result)) {
        starter.sandboxChanged(call.sandbox());
      }
      // Its runner, if it has one already, finds that and ends the process; a call that started
      // meanwhile is next.
      call = get(operation, id);
    }
    if (call.status() == CallStatus.RUNNING) {
      Message answer =
          ask(
              call.sandbox(),
              new Message.Terminate(id.value(), limits.grace().toMillis(), EndCause.CANCELLED));
      switch (answer) {
        case Message.Done _ -> {}
        // It ended by itself just now: its end is on its way into the log.
        case Message.Failure failure when failure.code() == Message.FailureCode.UNKNOWN_CALL -> {}
        case Message.Failure failure -> throw new ProblemException(problem(failure));
        case Message other -> throw misbehaved(other);
      }
    }
    return call;
  }

  /// Ends a call that has not begun, and the sandbox where the call was all it was for.
  ///
  /// @return whether it ended
  private boolean endPending(Call call, CallResult result) {
    List<Change> changes = new ArrayList<>();
    changes.add(new Change.EndCall(call.id(), result));
    changes.add(new Change.AppendEvent(Events.ended(call.id(), result)));
    if (call.destroysSandbox()) {
      String reason = "its call was cancelled";
      List<Change> both = new ArrayList<>(changes);
      both.add(
          new Change.MoveSandbox(
              Set.of(Phase.REQUESTED, Phase.STARTING, Phase.READY),
              Phase.STOPPING,
              reason,
              Optional.empty(),
              result.endedAt()));
      both.add(new Change.AppendEvent(Events.phase(result.endedAt(), Phase.STOPPING, reason)));
      CommitResult outcome = store.commit(new Commit(call.sandbox(), both));
      if (!(outcome instanceof CommitResult.Refused refused
          && refused.refusal() == Change.Refusal.WRONG_PHASE)) {
        return outcome instanceof CommitResult.Committed;
      }
      // Somebody is destroying it already.
    }
    return store.commit(new Commit(call.sandbox(), changes)) instanceof CommitResult.Committed;
  }

  @Override
  public Download readFile(Operation operation, Id sandboxId, String path) {
    Sandbox sandbox = sandbox(operation, sandboxId);
    if (earlier(operation).isPresent()) {
      return readFile(operation.unkeyed(), sandboxId, path);
    }
    Begun begun = decide(operation, sandbox, new ToolCall.FileRead(path), false, List.of());
    if (begun.earlier()) {
      return readFile(operation.unkeyed(), sandboxId, path);
    }
    Call call = begun.call();
    FileStream stream = null;
    try {
      awaitReady(operation, sandbox.id());
      AgentConnection agent = open(sandbox.id());
      stream =
          new FileStream(
              agent.connection(),
              agents.deadline(agent.connection(), patience.answer()),
              result -> end(call, result, List.of()),
              clock);
      FileInfo info = stream.begin(path);
      return new Download(call.id(), info, stream);
    } catch (ProblemException e) {
      if (stream == null) {
        end(call, failed(call, e.problem().detail()), List.of());
      }
      throw e;
    } catch (RuntimeException e) {
      end(call, failed(call, FAULT), List.of());
      throw e;
    }
  }

  @Override
  public FileInfo writeFile(
      Operation operation, Id sandboxId, String path, long size, InputStream content) {
    return perform(
        operation,
        sandbox(operation, sandboxId),
        new ToolCall.FileWrite(path, size),
        call -> {
          FileInfo info = upload(call, path, size, content);
          return new Performed<>(
              info,
              List.of(
                  Events.fileChanged(
                      clock.instant(), call.id(), path, "written", info.sizeBytes())));
        },
        earlier -> written(operation, earlier, path, size));
  }

  /// What the first call under an idempotency key wrote, as it was then.
  private FileInfo written(Operation operation, Call earlier, String path, long size) {
    boolean _ = succeeded(operation, earlier);
    long modifiedMillis =
        get(operation, earlier.id()).result().orElseThrow().endedAt().toEpochMilli();
    return new FileInfo(path, FileKind.FILE, Math.max(0, size), 0644, modifiedMillis);
  }

  /// Sends a file's bytes; nothing of it stays unless the last one was sent.
  private FileInfo upload(Call call, String path, long size, InputStream content) {
    AgentConnection agent = open(call.sandbox());
    try (Connection connection = agent.connection();
        Agents.Deadline deadline = agents.deadline(connection, patience.answer())) {
      return info(FileSender.send(connection, deadline, path, declared(size, content)));
    } catch (IOException e) {
      throw unanswered(e);
    }
  }

  /// The policy decided on the declared size: the content is held to it.
  private FileSender.Chunks declared(long size, InputStream content) {
    long[] total = {0};
    return () -> {
      byte[] chunk;
      try {
        chunk = content.readNBytes(TEXT_BYTES);
      } catch (IOException e) {
        throw new ProblemException(
            Problem.Invalid.of(
                "", "upload-incomplete", "the upload broke off after " + total[0] + " bytes"));
      }
      total[0] += chunk.length;
      if (total[0] > limits.uploadBytes()) {
        throw new ProblemException(
            new Problem.TooLarge(
                "file-too-large",
                "a file may have " + limits.uploadBytes() + " bytes (uploadBytes)"));
      }
      boolean whole = chunk.length < TEXT_BYTES;
      if (size >= 0 && (total[0] > size || (whole && total[0] != size))) {
        throw wrongLength(size, total[0]);
      }
      return chunk;
    };
  }

  private static ProblemException wrongLength(long size, long total) {
    return new ProblemException(
        Problem.Invalid.of(
            "",
            "upload-incomplete",
            "the upload has "
                + (total > size ? "more than " : "")
                + Math.min(total, size)
                + " bytes where "
                + size
                + " were declared"));
  }

  @Override
  public Listing listFiles(Operation operation, Id sandboxId, String path, int depth) {
    return perform(
        operation,
        sandbox(operation, sandboxId),
        new ToolCall.FileList(path, depth),
        call ->
            switch (ask(call.sandbox(), new Message.ListFiles(path, depth))) {
              case Message.FileList list ->
                  new Performed<>(new Listing(list.entries(), list.truncated()), List.of());
              case Message.Failure failure -> throw new ProblemException(problem(failure));
              case Message other -> throw misbehaved(other);
            },
        _ -> listFiles(operation.unkeyed(), sandboxId, path, depth));
  }

  @Override
  public FileInfo statFile(Operation operation, Id sandboxId, String path) {
    return perform(
        operation,
        sandbox(operation, sandboxId),
        new ToolCall.FileStat(path),
        call -> new Performed<>(info(ask(call.sandbox(), new Message.StatFile(path))), List.of()),
        _ -> statFile(operation.unkeyed(), sandboxId, path));
  }

  @Override
  public void removeFile(Operation operation, Id sandboxId, String path, boolean recursive) {
    boolean _ =
        perform(
            operation,
            sandbox(operation, sandboxId),
            new ToolCall.FileRemove(path, recursive),
            call -> {
              done(ask(call.sandbox(), new Message.RemoveFile(path, recursive)));
              return new Performed<>(
                  true,
                  List.of(Events.fileChanged(clock.instant(), call.id(), path, "removed", -1)));
            },
            earlier -> succeeded(operation, earlier));
  }

  @Override
  public void moveFile(Operation operation, Id sandboxId, String path, String target) {
    boolean _ =
        perform(
            operation,
            sandbox(operation, sandboxId),
            new ToolCall.FileMove(path, target),
            call -> {
              done(ask(call.sandbox(), new Message.MoveFile(path, target)));
              return new Performed<>(
                  true,
                  List.of(
                      Events.fileChanged(clock.instant(), call.id(), path, "removed", -1),
                      Events.fileChanged(clock.instant(), call.id(), target, "moved", -1)));
            },
            earlier -> succeeded(operation, earlier));
  }

  /// What performing a call gave: its value, and the events besides its end.
  private record Performed<T>(T value, List<NewEvent> events) {}

  private interface Performance<T> {
    Performed<T> perform(Call call);
  }

  /// A call that is done at once: decide, record, do, record.
  ///
  /// @param again what a repeat under the same idempotency key answers, from the first call: one
  ///   that changes something does not do so again, one that reads reads again
  private <T> T perform(
      Operation operation,
      Sandbox sandbox,
      ToolCall tool,
      Performance<T> performance,
      Function<Call, T> again) {
    Optional<Call> earlier = earlier(operation);
    if (earlier.isPresent()) {
      return again.apply(earlier.get());
    }
    Begun begun = decide(operation, sandbox, tool, false, List.of());
    Call call = begun.call();
    if (begun.earlier()) {
      return again.apply(call);
    }
    try {
      awaitReady(operation, sandbox.id());
      Performed<T> performed = performance.perform(call);
      Instant now = clock.instant();
      end(
          call,
          new CallResult(
              CallStatus.EXITED,
              0,
              0,
              "",
              0,
              0,
              Duration.between(call.requestedAt(), now).toMillis(),
              0,
              now),
          performed.events());
      return performed.value();
    } catch (ProblemException e) {
      end(call, failed(call, e.problem().detail()), List.of());
      throw e;
    } catch (RuntimeException e) {
      end(call, failed(call, FAULT), List.of());
      throw e;
    }
  }

  /// Waits for the end of the first call under an idempotency key.
  ///
  /// @return true
  private boolean succeeded(Operation operation, Call earlier) {
    Call ended = awaitEnd(operation, earlier, patience.ready());
    if (!ended.status().ended()) {
      throw new ProblemException(
          new Problem.Unavailable(
              "call-pending",
              "the first request with this Idempotency-Key is still being done",
              Duration.ofSeconds(2)));
    }
    if (ended.status() != CallStatus.EXITED) {
      throw new ProblemException(
          new Problem.Conflict(
              "call-failed",
              "the first request with this Idempotency-Key failed: "
                  + ended.result().map(CallResult::reason).orElse("")));
    }
    return true;
  }

  private CallResult failed(Call call, String reason) {
    Instant now = clock.instant();
    return new CallResult(
        CallStatus.FAILED,
        -1,
        0,
        reason,
        0,
        0,
        Duration.between(call.requestedAt(), now).toMillis(),
        0,
        now);
  }

  /// Records the end, again while the database is away: it has happened. A commit whose outcome was
  /// open is refused when it is repeated, and so is one after the sandbox was destroyed, which
  /// ended the call.
  private void end(Call call, CallResult result, List<NewEvent> events) {
    List<Change> changes = new ArrayList<>();
    changes.add(new Change.EndCall(call.id(), result));
    events.forEach(event -> changes.add(new Change.AppendEvent(event)));
    changes.add(new Change.AppendEvent(Events.ended(call.id(), result)));
    Commit commit = new Commit(call.sandbox(), changes);
    long until = System.nanoTime() + patience.answer().toNanos();
    try {
      while (true) {
        try {
          CommitResult _ = store.commit(commit);
          return;
        } catch (StoreUnavailableException e) {
          if (System.nanoTime() > until) {
            throw e;
          }
          Thread.sleep(patience.retry());
        }
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } finally {
      starter.callDone(call.id());
    }
  }

  /// A pending call.
  ///
  /// @param earlier whether an equal request recorded it: it is somebody else's to do
  private record Begun(Call call, boolean earlier) {}

  /// Evaluates the policy and records call and decision.
  private Begun decide(
      Operation operation,
      Sandbox sandbox,
      ToolCall tool,
      boolean background,
      List<String> outputs) {
    if (sandbox.phase().terminal() || sandbox.phase() == Phase.STOPPING) {
      throw gone(sandbox);
    }
    Policy policy = policies.byReference(sandbox.policy());
    Recorder.Decided decided =
        recorder.decide(
            operation.principal(),
            policy,
            sandbox.id(),
            sandbox.expiresAt(),
            tool,
            background,
            outputs,
            false);
    List<Change> changes = new ArrayList<>(decided.changes());
    if (decided.allowed()) {
      recorder.claim(operation, Optional.of(decided.call().id())).ifPresent(changes::add);
    }
    boolean own = decided.allowed() && !(tool instanceof ToolCall.Run);
    switch (record(new Commit(sandbox.id(), changes), decided.call().id(), own)) {
      case CommitResult.Committed _ -> {}
      case CommitResult.Refused refused -> {
        // An equal request that came first may have changed what this one was refused for.
        Optional<Call> first = decided.allowed() ? earlier(operation) : Optional.empty();
        if (first.isPresent()) {
          return new Begun(first.get(), true);
        }
        switch (refused.refusal()) {
          case QUOTA ->
              throw new ProblemException(
                  new Problem.Capacity(
                      "call-quota",
                      "the sandbox has "
                          + limits.callsPerSandbox()
                          + " live calls (callsPerSandbox)",
                      Duration.ofSeconds(1)));
          case WRONG_PHASE -> throw gone(sandbox);
          case KEY_TAKEN -> throw new IllegalStateException("a claimed key stands for nothing");
          case EXISTS, WRONG_OFFSET, ENDED, TAKEN ->
              throw new IllegalStateException("a new call was refused: " + refused.refusal());
        }
      }
    }
    if (!decided.allowed()) {
      throw new ProblemException(
          new Problem.Denied(
              sandbox.id(),
              decided.call().id(),
              decided.decision().rules(),
              decided.decision().policy(),
              decided.decision().reason()));
    }
    return new Begun(decided.call(), false);
  }

  /// @param own whether the gate does the call itself
  private CommitResult record(Commit commit, Id call, boolean own) {
    if (!own) {
      return store.commit(commit);
    }
    starter.callBegins(call);
    boolean begun = false;
    try {
      CommitResult outcome = store.commit(commit);
      begun = outcome instanceof CommitResult.Committed;
      return outcome;
    } finally {
      if (!begun) {
        starter.callDone(call);
      }
    }
  }

  /// Binds the operation's idempotency key, where it has one, to a request that may be repeated by
  /// doing it again: what is left to refuse is another body.
  private void claim(Operation operation, Call call) {
    if (earlier(operation).isPresent()) {
      return;
    }
    recorder
        .claim(operation, Optional.of(call.id()))
        .ifPresent(claim -> {
          if (store.commit(Commit.of(call.sandbox(), claim)) instanceof CommitResult.Refused) {
            Optional<Call> _ = earlier(operation);
          }
        });
  }

  /// The call that this operation's idempotency key stands for.
  private Optional<Call> earlier(Operation operation) {
    return Recorder.key(operation)
        .flatMap(key -> store.keyedRequest(key, clock.instant()))
        .map(request -> {
          requireSameBody(operation, request.bodyHash());
          return get(operation, request.call().orElseThrow());
        });
  }

  /// @throws ProblemException where the key was used for another body
  public static void requireSameBody(Operation operation, String bodyHash) {
    if (operation.idempotency().filter(i -> i.bodyHash().equals(bodyHash)).isEmpty()) {
      throw new ProblemException(
          new Problem.Conflict(
              "idempotency-mismatch",
              "this Idempotency-Key was used with another body in the last 24 hours: use a new"
                  + " key"));
    }
  }

  private Sandbox sandbox(Operation operation, Id id) {
    return Tenancy.sandbox(store, operation, id);
  }

  /// The call, once it runs.
  private Call running(Operation operation, Id id) {
    Call call = get(operation, id);
    if (!ToolNames.runs(call.tool())) {
      throw new ProblemException(
          new Problem.Conflict(
              "not-a-process", "the call is a " + call.tool() + ", not a process"));
    }
    Optional<Call> running =
        Waits.until(
            store,
            call.sandbox(),
            patience.ready(),
            () -> store.call(id).filter(c -> c.status() != CallStatus.PENDING));
    if (running.isEmpty()) {
      throw new ProblemException(
          new Problem.Unavailable(
              "call-pending", "the call has not started yet", Duration.ofSeconds(2)));
    }
    if (running.get().status().ended()) {
      throw new ProblemException(
          new Problem.Conflict(
              "call-ended", "the call has ended: " + running.get().status().wireName()));
    }
    return running.get();
  }

  private void awaitReady(Operation operation, Id id) {
    Optional<Sandbox> settled =
        Waits.until(
            store,
            id,
            patience.ready(),
            () ->
                store
                    .sandbox(id)
                    .filter(s -> s.phase() != Phase.REQUESTED && s.phase() != Phase.STARTING));
    Sandbox sandbox = settled.orElseGet(() -> sandbox(operation, id));
    if (sandbox.phase() == Phase.READY) {
      return;
    }
    if (settled.isEmpty()) {
      throw new ProblemException(
          new Problem.Unavailable(
              "sandbox-not-ready",
              "the sandbox is still " + sandbox.phase().wireName(),
              Duration.ofSeconds(2)));
    }
    throw gone(sandbox);
  }

  private static ProblemException gone(Sandbox sandbox) {
    String why = sandbox.reason().isEmpty() ? "" : " (" + sandbox.reason() + ")";
    return new ProblemException(
        new Problem.Conflict("sandbox-gone", "the sandbox is " + sandbox.phase().wireName() + why));
  }

  private AgentConnection open(Id sandbox) {
    try {
      return agents.open(sandbox);
    } catch (DriverException e) {
      throw unreachable(e);
    }
  }

  private Message ask(Id sandbox, Message.Request request) {
    try {
      return agents.ask(sandbox, request, patience.answer());
    } catch (DriverException e) {
      throw unreachable(e);
    } catch (IOException e) {
      throw unanswered(e);
    }
  }

  private void done(Message answer) {
    switch (answer) {
      case Message.Done _ -> {}
      case Message.Failure failure -> throw new ProblemException(problem(failure));
      case Message other -> throw misbehaved(other);
    }
  }

  static FileInfo info(@org.jspecify.annotations.Nullable Message answer) {
    return switch (answer) {
      case FileInfo info -> info;
      case Message.Failure failure -> throw new ProblemException(problem(failure));
      case null ->
          throw unanswered(new IOException("the agent closed the connection without an answer"));
      case Message other -> throw misbehaved(other);
    };
  }

  private ProblemException unreachable(DriverException e) {
    return new ProblemException(
        new Problem.Unavailable(
            "agent-unreachable",
            "the sandbox's agent cannot be reached: " + e.getMessage(),
            Duration.ofSeconds(1)));
  }

  static ProblemException unanswered(IOException e) {
    String why =
        e instanceof MalformedMessageException
            ? "the sandbox's agent broke its protocol"
            : "the sandbox's agent did not answer";
    return new ProblemException(
        new Problem.Unavailable("agent-unanswered", why, Duration.ofSeconds(1)));
  }

  private static ProblemException misbehaved(Message answer) {
    return unanswered(
        new MalformedMessageException("an unexpected " + answer.getClass().getSimpleName()));
  }

  /// What an agent's refusal means to a client. Its message comes from inside the sandbox: bounded,
  /// shown, not trusted.
  static Problem problem(Message.Failure failure) {
    String detail = failure.message();
    return switch (failure.code()) {
      case OUTSIDE_WORKSPACE ->
          Problem.Invalid.of("path:path", "outside-workspace", "the path leaves the workspace");
      case NOT_FOUND -> new Problem.NotFound("file-not-found", detail);
      case NOT_A_FILE -> new Problem.Conflict("not-a-file", detail);
      case NOT_A_DIRECTORY -> new Problem.Conflict("not-a-directory", detail);
      case NOT_EMPTY -> new Problem.Conflict("not-empty", detail);
      case DISK_FULL ->
          new Problem.TooLarge("disk-full", "the workspace's disk limit is reached: " + detail);
      case UNKNOWN_CALL, ALREADY_RAN -> new Problem.Conflict("call-ended", "the process has ended");
      case WRONG_OFFSET -> new Problem.Conflict("wrong-offset", detail);
      case STDIN_CLOSED -> new Problem.Conflict("stdin-closed", "the process's stdin is closed");
      case LIMIT -> new Problem.Capacity("agent-limit", detail, Duration.ofSeconds(1));
      case NOT_EXECUTABLE, BAD_CWD, BAD_REQUEST -> Problem.Invalid.of("", "bad-value", detail);
      case IO -> new Problem.Conflict("file-error", detail);
    };
  }
}
