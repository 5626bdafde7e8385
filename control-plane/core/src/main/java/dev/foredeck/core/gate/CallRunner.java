package dev.foredeck.core.gate;

import dev.foredeck.core.Events;
import dev.foredeck.core.Hashes;
import dev.foredeck.core.Id;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Patience;
import dev.foredeck.core.driver.Driver.AgentConnection;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Change;
import dev.foredeck.core.store.Commit;
import dev.foredeck.core.store.CommitResult;
import dev.foredeck.core.store.Store;
import dev.foredeck.core.store.Store.StoreUnavailableException;
import dev.foredeck.protocol.Channel;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Wire.MalformedMessageException;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Carries one call from `pending` to its end: starts the process (or attaches to it), commits what
/// it prints, then acknowledges it, and commits how it ended.
///
/// Threading: [#run] on one virtual thread; [#stop] from any. Invariant: the agent is told that
/// output is committed only after the commit, and a process is started only for a call whose row
/// said `pending`; the agent starts none whose id it knows or has released. So a crash at any point
/// loses no byte, repeats none and runs nothing twice. Everything here can be done again by another
/// runner that starts from the row.
public final class CallRunner {
  private static final Logger LOG = LoggerFactory.getLogger(CallRunner.class);

  /// Changes of the channel within one commit that the log shows in their order. A process that
  /// alternates faster gets its bytes in order per channel, and cannot make a row of every byte.
  private static final int SWITCHES = 8;

  private static final int BATCH_BYTES = 1024 * 1024;
  private static final int BATCH_MESSAGES = 64;

  /// What a runner needs from around it.
  public record Surroundings(
      Store store,
      Agents agents,
      Clock clock,
      Limits limits,
      Patience patience,
      OptionalLong maxResultBytes) {}

  /// How a runner ended.
  public enum End {
    /// The call's end is committed (by this runner or by somebody else).
    CALL_ENDED,
    /// The call's end is committed, and the agent can be trusted or reached no more: the sandbox
    /// must go.
    AGENT_FAILED,
    /// Nothing has begun, and the agent is gone: a call of a sandbox that nobody has touched, which
    /// may begin again on another agent.
    NOT_BEGUN,
    /// Told to stop, or somebody else has moved the call on: the call's row says how it goes on.
    STOPPED
  }

  private final Surroundings around;
  private final Sandbox sandbox;
  private final Id id;

  /// The call as it was just recorded, which saves its first reading.
  private @Nullable Call recorded;

  /// As far as this runner's thread knows.
  private boolean databaseAnswers = true;

  private volatile boolean stopped;
  private volatile @Nullable Connection current;
  private volatile String agentFault = "";

  /// Of a call that is in the store: its row is read.
  public CallRunner(Surroundings around, Sandbox sandbox, Id call) {
    this.around = around;
    this.sandbox = sandbox;
    this.id = call;
  }

  /// Of a call that was recorded just now and has no runner.
  public CallRunner(Surroundings around, Sandbox sandbox, Call recorded) {
    this(around, sandbox, recorded.id());
    this.recorded = recorded;
  }

  public Id call() {
    return id;
  }

  /// What was wrong with the agent, where [#run] says [End#AGENT_FAILED].
  public String agentFault() {
    return agentFault;
  }

  /// Lets go of the call without ending it. [#run] returns soon after.
  public void stop() {
    stopped = true;
    Connection connection = current;
    if (connection != null) {
      connection.close();
    }
  }

  /// Blocks until the call has ended, or [#stop].
  public End run() {
    long unreachableSince = 0;
    while (!stopped) {
      Conversation conversation = null;
      try {
        Optional<Call> row = row();
        if (row.isEmpty() || row.get().status().ended()) {
          return End.CALL_ENDED;
        }
        conversation = new Conversation(row.get());
        AgentConnection agent = around.agents().open(sandbox.id());
        current = agent.connection();
        try (Connection connection = agent.connection()) {
          if (stopped) {
            return End.STOPPED;
          }
          if (!agent.greeting().bootId().equals(sandbox.bootId())) {
            return endLost("the sandbox's agent is not the one that the call began under");
          }
          return conversation.hold(connection);
        }
      } catch (MalformedMessageException e) {
        return endLost("the agent broke the protocol: " + e.getMessage());
      } catch (DriverException.NotThere e) {
        if (around.agents().untouched(sandbox.id())) {
          return End.NOT_BEGUN;
        }
        return endLost("the sandbox's agent is gone: " + e.getMessage());
      } catch (DriverException | IOException e) {
        long now = System.nanoTime();
        // Only what an agent says counts as an answer: one that greets and leaves says nothing.
        if (unreachableSince == 0 || (conversation != null && conversation.answered)) {
          unreachableSince = now;
        } else if (now - unreachableSince > around.patience().unreachable().toNanos()) {
          return endLost("the sandbox's agent does not answer");
        }
        LOG.debug("call {}: connection lost, trying again: {}", id, e.getMessage());
        pause();
      } catch (StoreUnavailableException e) {
        // Whether the last commit happened is unknown: the row, read again, says so.
        databaseAway(e);
        pause();
      } catch (Superseded e) {
        LOG.info("call {}: {}", id, e.getMessage());
        return stopped || !e.ended ? End.STOPPED : End.CALL_ENDED;
      } finally {
        current = null;
      }
    }
    return End.STOPPED;
  }

  private Optional<Call> row() {
    Call known = recorded;
    recorded = null;
    if (known != null) {
      return Optional.of(known);
    }
    Optional<Call> row = around.store().call(id);
    databaseAnswers = true;
    return row;
  }

  /// Ends the call without its process: the agent cannot be trusted or reached any more.
  private End endLost(String reason) {
    agentFault = reason;
    while (!stopped) {
      try {
        Optional<Call> row = around.store().call(id);
        if (row.isPresent() && !row.get().status().ended()) {
          new Conversation(row.get()).lost(reason);
        }
        return End.AGENT_FAILED;
      } catch (StoreUnavailableException e) {
        databaseAway(e);
        pause();
      } catch (Superseded _) {
        return End.AGENT_FAILED;
      }
    }
    return End.STOPPED;
  }

  /// A warning for each time that the database goes away, and not for each time that it is asked
  /// again: there is a runner for every live call.
  private void databaseAway(StoreUnavailableException e) {
    if (databaseAnswers) {
      LOG.warn("call {}: the database does not answer: {}", id, e.getMessage());
    } else {
      LOG.debug("call {}: the database still does not answer: {}", id, e.getMessage());
    }
    databaseAnswers = false;
  }

  private void pause() {
    try {
      Thread.sleep(around.patience().retry());
    } catch (InterruptedException e) {
      stopped = true;
      Thread.currentThread().interrupt();
    }
  }

  /// Somebody else moved the call on: this runner has nothing left to do.
  private static final class Superseded extends RuntimeException {
    private static final long serialVersionUID = 1L;

    /// Whether the call has ended, so that a process of it must not go on.
    private final boolean ended;

    Superseded(String message, boolean ended) {
      super(message, null, false, false);
      this.ended = ended;
    }
  }

  /// One connection's worth of a call, from what the row said when it began.
  private final class Conversation {
    private final Call row;
    private final ToolCall.Run run;
    private final long limitBytes;
    private boolean started;
    private long stdout;
    private long stderr;
    // Of this connection.
    private boolean answered;
    private boolean sawEnd;

    Conversation(Call row) {
      this.row = row;
      this.run = ToolCalls.runOf(row.tool(), row.arguments());
      this.started = row.status() == CallStatus.RUNNING;
      this.stdout = row.stdoutBytes();
      this.stderr = row.stderrBytes();
      long limit = around.limits().callOutputBytes();
      this.limitBytes = Math.min(limit, around.maxResultBytes().orElse(limit));
    }

    End hold(Connection connection) throws IOException {
      try {
        connection.send(opening());
      } catch (IllegalArgumentException e) {
        // Limits of the wire that the door did not know of.
        finish(
            new ArrayList<>(),
            result(CallStatus.FAILED, -1, 0, "it cannot be started: " + e.getMessage(), 0, 0, 0));
        return End.CALL_ENDED;
      }
      Inbox inbox = new Inbox(connection, BATCH_MESSAGES, BATCH_BYTES);
      Thread.ofVirtual().name("call-receive-" + id).start(inbox::fill);
      // The agent enforces the timeout. This is for one that does not: it can only be given up.
      long giveUp = System.nanoTime() + backstop().toNanos();
      try {
        while (!stopped) {
          List<Message> batch = inbox.take(giveUp - System.nanoTime());
          if (batch.isEmpty()) {
            return endLost("the agent did not end the call in its time");
          }
          Optional<End> end = take(batch, inbox, connection);
          if (end.isPresent()) {
            return end.get();
          }
        }
        return End.STOPPED;
      } catch (Superseded e) {
        if (e.ended && !stopped) {
          endProcess(inbox, connection);
        }
        throw e;
      } finally {
        inbox.close();
      }
    }

    private void acknowledge(Connection connection) throws IOException {
      connection.send(new Message.Ack(Channel.STDOUT, stdout));
      connection.send(new Message.Ack(Channel.STDERR, stderr));
    }

    /// The call has ended without its process (it was cancelled while it was being started, for
    /// one): sees the process to its end, so that the agent can forget it.
    private void endProcess(Inbox inbox, Connection connection) {
      terminate();
      long end =
          System.nanoTime() + around.limits().grace().plus(around.patience().overrun()).toNanos();
      try {
        while (!sawEnd && !stopped) {
          List<Message> batch = inbox.take(end - System.nanoTime());
          if (batch.isEmpty()) {
            LOG.warn("call {}: its process does not end", id);
            return;
          }
          for (Message message : batch) {
            if (message instanceof Message.Output output) {
              connection.send(
                  new Message.Ack(output.channel(), output.offset() + output.bytes().length));
            } else {
              sawEnd |= message instanceof Message.Ended || message instanceof Message.Failure;
            }
          }
        }
        release(inbox, connection);
      } catch (IOException e) {
        LOG.debug("call {}: its process was left: {}", id, e.getMessage());
      }
    }

    private Message.Request opening() {
      if (started) {
        // Never start what ran: an agent that does not know it any more lost it. The offsets
        // acknowledge what is committed, also where the last Ack died with its sender.
        return new Message.Attach(id.value(), stdout, stderr);
      }
      return new Message.StartProcess(
          id.value(),
          Interpreters.argv(run),
          Environment.of(sandbox, id, run),
          run.cwd(),
          Interpreters.script(run),
          run.stdin(),
          timeout().toMillis(),
          around.limits().grace().toMillis(),
          stdout,
          stderr);
    }

    /// What is left of the process's time, which counts from its start.
    private Duration timeout() {
      Instant now = around.clock().instant();
      Instant from = row.startedAt().orElse(now);
      Instant end =
          run.timeout()
              .map(from::plus)
              .orElseGet(() ->
                  row.background()
                      ? sandbox.expiresAt()
                      : from.plus(around.limits().defaultTimeout()));
      Instant earlier = end.isBefore(sandbox.expiresAt()) ? end : sandbox.expiresAt();
      Duration left = Duration.between(now, earlier);
      return left.isPositive() ? left : Duration.ofMillis(1);
    }

    private Duration backstop() {
      return timeout().plus(around.limits().grace()).plus(around.patience().overrun());
    }

    /// Commits a batch, then acknowledges it.
    private Optional<End> take(List<Message> batch, Inbox inbox, Connection connection)
        throws IOException {
      Instant now = around.clock().instant();
      List<Change> changes = new ArrayList<>();
      Message.@Nullable Ended ended = null;
      Map<Channel, ByteArrayOutputStream> runs = new EnumMap<>(Channel.class);
      @Nullable Channel runChannel = null;
      int switches = 0;
      boolean startedNow = false;
      for (Message message : batch) {
        if (ended != null) {
          throw new MalformedMessageException("a message after the end of the process");
        }
        switch (message) {
          case Message.Started start -> {
            if (answered) {
              throw new MalformedMessageException("a second start of the process");
            }
            answered = true;
            if (!started) {
              startedNow = true;
              changes.add(new Change.StartCall(id, start.pid(), now));
              changes.add(new Change.AppendEvent(Events.started(now, id, start.pid())));
            }
          }
          case Message.Output output -> {
            if (!answered) {
              throw new MalformedMessageException("output of a process that has not started");
            }
            if (runChannel != null && runChannel != output.channel() && ++switches <= SWITCHES) {
              flush(changes, runs, now);
            }
            ByteArrayOutputStream run =
                runs.computeIfAbsent(output.channel(), _ -> new ByteArrayOutputStream());
            long expected = offset(output.channel()) + run.size();
            if (output.offset() != expected) {
              throw new MalformedMessageException(
                  output.channel().wireName()
                      + " at offset "
                      + output.offset()
                      + " where "
                      + expected
                      + " comes next");
            }
            runChannel = output.channel();
            run.writeBytes(output.bytes());
          }
          case Message.Ended end -> {
            if (!answered) {
              throw new MalformedMessageException("the end of a process that has not started");
            }
            ended = end;
            sawEnd = true;
          }
          case Message.Failure failure -> {
            if (answered) {
              throw new MalformedMessageException("a refusal of a process that has started");
            }
            answered = true;
            sawEnd = true;
            return Optional.of(failed(failure));
          }
          case Message.StdinAck _, Message.Done _ -> {}
          case Message other ->
              throw new MalformedMessageException(
                  "a " + other.getClass().getSimpleName() + " in a process's stream");
        }
      }
      flush(changes, runs, now);
      if (ended != null) {
        End end = end(ended, changes);
        release(inbox, connection);
        return Optional.of(end);
      }
      commit(changes);
      started |= startedNow;
      if (runChannel != null) {
        acknowledge(connection);
      }
      return Optional.empty();
    }

    private void flush(List<Change> changes, Map<Channel, ByteArrayOutputStream> runs, Instant now)
        throws MalformedMessageException {
      for (Map.Entry<Channel, ByteArrayOutputStream> run : runs.entrySet()) {
        if (run.getValue().size() > 0) {
          flush(changes, run.getKey(), run.getValue(), now);
        }
      }
    }

    /// Turns a run of one channel's bytes into changes, and moves the channel's offset.
    private void flush(
        List<Change> changes, Channel channel, ByteArrayOutputStream run, Instant now)
        throws MalformedMessageException {
      byte[] bytes = run.toByteArray();
      run.reset();
      long offset = offset(channel);
      int keep = Math.clamp(limitBytes - offset, 0, bytes.length);
      if (keep > 0) {
        byte[] kept = keep == bytes.length ? bytes : java.util.Arrays.copyOf(bytes, keep);
        changes.add(new Change.AppendOutput(id, channel, offset, kept));
        changes.add(new Change.AppendEvent(Events.output(now, id, channel, offset, keep)));
      }
      if (keep < bytes.length) {
        changes.add(new Change.SkipOutput(id, channel, offset + keep, bytes.length - keep));
        // Once for each channel: when the limit falls into this run, or was met exactly by the one
        // before.
        if (offset <= limitBytes) {
          changes.add(
              new Change.AppendEvent(
                  Events.truncated(now, id, channel, offset + keep, limitBytes)));
        }
      }
      switch (channel) {
        case STDOUT -> stdout += bytes.length;
        case STDERR -> stderr += bytes.length;
        case PTY ->
            throw new MalformedMessageException("output of a terminal that nobody asked for");
      }
    }

    private long offset(Channel channel) throws MalformedMessageException {
      return switch (channel) {
        case STDOUT -> stdout;
        case STDERR -> stderr;
        case PTY ->
            throw new MalformedMessageException("output of a terminal that nobody asked for");
      };
    }

    private End failed(Message.Failure failure) {
      // The agent's words: bounded by the codec, shown as a reason, never trusted.
      return switch (failure.code()) {
        case UNKNOWN_CALL, ALREADY_RAN -> {
          lost(
              "the agent no longer knows the process; nothing is known of its output from stdout"
                  + " offset "
                  + stdout
                  + " and stderr offset "
                  + stderr);
          yield End.CALL_ENDED;
        }
        case WRONG_OFFSET -> {
          yield endLost("the agent does not have the output from the committed offset");
        }
        case NOT_EXECUTABLE,
            BAD_CWD,
            STDIN_CLOSED,
            OUTSIDE_WORKSPACE,
            NOT_FOUND,
            NOT_A_FILE,
            NOT_A_DIRECTORY,
            NOT_EMPTY,
            DISK_FULL,
            LIMIT,
            BAD_REQUEST,
            IO -> {
          finish(new ArrayList<>(), result(CallStatus.FAILED, -1, 0, failure.message(), 0, 0, 0));
          releaseNotStarted();
          yield End.CALL_ENDED;
        }
      };
    }

    private End end(Message.Ended ended, List<Change> changes) throws IOException {
      if (ended.stdoutBytes() != stdout || ended.stderrBytes() != stderr) {
        throw new MalformedMessageException("an end whose output lengths are not what was sent");
      }
      if (!row.outputs().isEmpty()) {
        // What it printed is seen before its files are copied, each of which is kept by itself:
        // only one is in memory, and after a crash the rest is copied.
        commit(changes);
        changes.clear();
        copyOut(changes);
      }
      CallStatus status =
          switch (ended.cause()) {
            case TIMEOUT -> CallStatus.TIMEOUT;
            case CANCELLED -> CallStatus.CANCELLED;
            case SELF -> ended.signal() > 0 ? CallStatus.SIGNALED : CallStatus.EXITED;
          };
      finish(
          changes,
          result(
              status,
              ended.signal() > 0 ? -1 : ended.exitCode(),
              ended.signal(),
              "",
              ended.cpuMicros(),
              ended.peakMemoryBytes(),
              ended.wallMillis()));
      return End.CALL_ENDED;
    }

    void lost(String reason) {
      finish(new ArrayList<>(), result(CallStatus.LOST, -1, 0, reason, 0, 0, wallMillis()));
    }

    private CallResult result(
        CallStatus status,
        int exitCode,
        int signal,
        String reason,
        long cpuMicros,
        long peakMemoryBytes,
        long wallMillis) {
      return new CallResult(
          status,
          exitCode,
          signal,
          reason,
          cpuMicros,
          peakMemoryBytes,
          wallMillis,
          stdout + stderr,
          around.clock().instant());
    }

    private long wallMillis() {
      return row.startedAt()
          .map(at -> Math.max(0, Duration.between(at, around.clock().instant()).toMillis()))
          .orElse(0L);
    }

    /// Commits the call's end, and the sandbox's where the call was all it was for.
    private void finish(List<Change> changes, CallResult result) {
      changes.add(new Change.EndCall(id, result));
      changes.add(new Change.AppendEvent(Events.ended(id, result)));
      if (row.destroysSandbox()) {
        String reason = "its call has ended";
        List<Change> both = new ArrayList<>(changes);
        both.add(
            new Change.MoveSandbox(
                Set.of(Phase.READY), Phase.STOPPING, reason, Optional.empty(), result.endedAt()));
        both.add(new Change.AppendEvent(Events.phase(result.endedAt(), Phase.STOPPING, reason)));
        CommitResult outcome = around.store().commit(new Commit(sandbox.id(), both));
        if (!(outcome instanceof CommitResult.Refused refused
            && refused.refusal() == Change.Refusal.WRONG_PHASE)) {
          accepted(outcome);
          return;
        }
        // Somebody is destroying it already.
      }
      commit(changes);
    }

    private void commit(List<Change> changes) {
      if (!changes.isEmpty()) {
        accepted(around.store().commit(new Commit(sandbox.id(), changes)));
      }
    }

    private void accepted(CommitResult outcome) {
      if (outcome instanceof CommitResult.Refused refused) {
        if (refused.refusal() == Change.Refusal.ENDED) {
          boolean ended = around.store().call(id).filter(c -> !c.status().ended()).isEmpty();
          throw new Superseded("it has ended or runs under another runner", ended);
        }
        throw new Superseded("somebody else moved the call on (" + refused.refusal() + ")", false);
      }
    }

    private void copyOut(List<Change> changes) {
      Set<String> copied =
          around.store().artifacts(id).stream()
              .map(Store.Artifact::path)
              .collect(Collectors.toSet());
      for (String path : new LinkedHashSet<>(row.outputs())) {
        if (!copied.contains(path)) {
          copyOut(path, changes);
        }
      }
    }

    private void copyOut(String path, List<Change> changes) {
      Instant now = around.clock().instant();
      int most = around.limits().outputFileBytes();
      try {
        byte[] bytes = read(path, most);
        String sha256 = Hashes.sha256(bytes);
        Optional<byte[]> inline =
            bytes.length <= around.limits().inlineOutputBytes()
                ? Optional.of(bytes)
                : Optional.empty();
        commit(
            List.of(
                new Change.SaveArtifact(id, path, bytes, sha256),
                new Change.AppendEvent(
                    Events.copiedOut(now, id, path, bytes.length, sha256, inline))));
      } catch (DriverException | IOException e) {
        if (stopped) {
          throw new Superseded("told to stop", false);
        }
        String why = e.getMessage() == null ? "it could not be read" : e.getMessage();
        changes.add(new Change.AppendEvent(Events.missing(now, id, path, why)));
      }
    }

    private byte[] read(String path, int most) throws DriverException, IOException {
      AgentConnection agent = around.agents().open(sandbox.id());
      try (Connection connection = agent.connection();
          Agents.Deadline _ = around.agents().deadline(connection, around.patience().copyOut())) {
        // The process's own connection has nothing more to say: this is what a stop must free.
        current = connection;
        if (stopped) {
          throw new IOException("told to stop");
        }
        connection.send(new Message.ReadFile(path, 0, most + 1L));
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        while (true) {
          switch (connection.receive()) {
            case Message.FileInfo info -> {
              if (info.sizeBytes() > most) {
                throw new IOException(
                    "it has " + info.sizeBytes() + " bytes; at most " + most + " are copied out");
              }
            }
            case Message.Chunk chunk -> {
              bytes.writeBytes(chunk.bytes());
              if (bytes.size() > most) {
                throw new IOException("it has more than " + most + " bytes");
              }
            }
            case Message.ChunksEnd _ -> {
              return bytes.toByteArray();
            }
            case Message.Failure failure -> throw new IOException(failure.message());
            case null -> throw new IOException("the agent did not answer");
            case Message other ->
                throw new MalformedMessageException(
                    "a " + other.getClass().getSimpleName() + " in a file's stream");
          }
        }
      }
    }

    private void terminate() {
      try {
        around
            .agents()
            .ask(
                sandbox.id(),
                new Message.Terminate(
                    id.value(), around.limits().grace().toMillis(), Message.EndCause.CANCELLED),
                around.patience().answer());
      } catch (DriverException | IOException e) {
        LOG.warn("call {}: its process could not be told to end: {}", id, e.getMessage());
      }
    }

    /// The result is committed: the agent may forget the call. A release that gets lost costs the
    /// agent memory until the sandbox is adopted the next time.
    private void release(Inbox inbox, Connection connection) {
      if (row.destroysSandbox()) {
        return;
      }
      current = connection;
      long end = System.nanoTime() + around.patience().answer().toNanos();
      try {
        connection.send(new Message.Release(id.value()));
        boolean done = false;
        while (!done && !stopped) {
          List<Message> batch = inbox.take(end - System.nanoTime());
          done = batch.isEmpty() || batch.stream().anyMatch(Message.Done.class::isInstance);
        }
      } catch (IOException e) {
        LOG.debug("call {}: not released: {}", id, e.getMessage());
      }
    }

    /// The same for a call whose connection the agent has closed.
    private void releaseNotStarted() {
      if (row.destroysSandbox()) {
        return;
      }
      try {
        around
            .agents()
            .ask(sandbox.id(), new Message.Release(id.value()), around.patience().answer());
      } catch (DriverException | IOException e) {
        LOG.debug("call {}: not released: {}", id, e.getMessage());
      }
    }
  }
}
