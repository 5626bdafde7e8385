package dev.foredeck.agent;

import dev.foredeck.protocol.Channel;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Message.EndCause;
import dev.foredeck.protocol.Message.FailureCode;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// One process that a call started: its output, how it ended, and who reads it.
///
/// Life: starting, then running (or gone again when it could not be started), exited, ended, and
/// forgotten by the table when the control plane releases it. It has ended when the first process
/// has exited and its pipes are at their end, or 200 ms after the exit; that time runs only while
/// no spool is full, and all that the first process wrote is in the spools by then.
///
/// Threads: everything that changes is guarded by `lock`; the pump alone touches the pipes.
final class CallProcess {
  /// How long a call waits after its exit for those that hold its pipes open.
  private static final long LINGER_NANOS = TimeUnit.MILLISECONDS.toNanos(200);

  /// How often a termination looks whether everyone has gone before the grace is over.
  private static final long LOOK_NANOS = TimeUnit.MILLISECONDS.toNanos(20);

  /// A timeout beyond this is none.
  private static final long LONGEST_MILLIS = TimeUnit.DAYS.toMillis(10_000);

  private final String callId;
  private final Pump pump;
  private final ReentrantLock lock = new ReentrantLock();

  /// Output, an attachment, the start or the end.
  private final Condition changed = lock.newCondition();

  /// The exit, or a termination that is asked for.
  private final Condition guarded = lock.newCondition();

  private final Spool stdout;
  private final Spool stderr;

  // Set once when the process starts.
  private int pid;
  private long startNanos;
  private List<OutputPipe> pipes = List.of();
  private @Nullable StdinPipe stdin;
  private @Nullable FailureException startFailure;

  private Kernel.@Nullable Exit exit;
  private long exitNanos;
  private boolean ended;
  private boolean released;
  private @Nullable Attachment attached;

  // The clock of the linger time.
  private long lingeredNanos;
  private long watchedNanos;
  private boolean wasBlocked;

  // Termination.
  private @Nullable EndCause cause;
  private long terminateAtNanos;
  private long killAtNanos = Long.MAX_VALUE;
  private boolean guarding;

  CallProcess(String callId, Pump pump, Spool.Budget budget) {
    this.callId = callId;
    this.pump = pump;
    this.stdout = new Spool(budget);
    this.stderr = new Spool(budget);
  }

  String callId() {
    return callId;
  }

  // The start.

  /// The process runs, or has exited already. Its pipes are pumped from here on.
  ///
  /// @param startedNanos a time before its first instruction
  void started(
      int startedPid,
      long startedNanos,
      int stdoutDescriptor,
      int stderrDescriptor,
      StdinPipe stdinPipe,
      long timeoutMillis,
      long graceMillis) {
    lock.lock();
    try {
      pid = startedPid;
      startNanos = startedNanos;
      watchedNanos = startNanos;
      stdin = stdinPipe;
      pipes =
          List.of(
              new OutputPipe(stdoutDescriptor, stdout), new OutputPipe(stderrDescriptor, stderr));
      terminateAtNanos = startNanos + nanos(timeoutMillis);
      guarding = true;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
    pump.add(this);
    startGuard(graceMillis);
  }

  void notStarted(FailureException failure) {
    lock.lock();
    try {
      startFailure = failure;
      ended = true;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /// Waits until the process has started.
  ///
  /// @return its pid
  private int awaitStart() throws FailureException, InterruptedException {
    while (pid == 0 && startFailure == null) {
      changed.await();
    }
    if (startFailure != null) {
      throw new FailureException(startFailure.code(), String.valueOf(startFailure.getMessage()));
    }
    return pid;
  }

  // Output and the end, by the pump.

  /// What the pump shall wait for.
  ///
  /// @param againInMillis when to look again even if nothing happens, or -1
  record Watch(boolean ended, List<OutputPipe> readable, int againInMillis) {}

  List<OutputPipe> pipes() {
    return pipes;
  }

  Watch watch(long now) {
    lock.lock();
    try {
      boolean exited = exit != null;
      if (exited && !wasBlocked) {
        lingeredNanos += now - Math.max(watchedNanos, Math.min(now, exitNanos));
      }
      watchedNanos = now;
      List<OutputPipe> readable = new ArrayList<>(2);
      boolean open = false;
      boolean drained = true;
      wasBlocked = false;
      for (OutputPipe pipe : pipes) {
        open |= pipe.isOpen();
        drained &= pipe.isDrainedOfTheFirstProcess();
        if (pipe.isOpen() && (released || room(pipe) > 0)) {
          readable.add(pipe);
        } else if (pipe.isOpen()) {
          wasBlocked = true;
        }
      }
      if (exited && !ended && (!open || (drained && lingeredNanos >= LINGER_NANOS) || released)) {
        ended = true;
        changed.signalAll();
        if (stdin != null) {
          stdin.close();
        }
      }
      int again = -1;
      if (exited && !ended && !wasBlocked) {
        again = (int) TimeUnit.NANOSECONDS.toMillis(Math.max(0, LINGER_NANOS - lingeredNanos)) + 1;
      }
      return new Watch(ended, readable, again);
    } finally {
      lock.unlock();
    }
  }

  private static int room(OutputPipe pipe) {
    return pipe.spool == null ? Integer.MAX_VALUE : pipe.spool.room();
  }

  /// Reads what a pipe has after the pump waited for it.
  void pump(OutputPipe pipe, boolean ready, MemorySegment buffer) {
    boolean exited;
    int room;
    lock.lock();
    try {
      // The wait began after `watch`: only an exit that was known then counts for it.
      exited = exit != null && exitNanos <= watchedNanos;
      room = released ? (int) buffer.byteSize() : room(pipe);
    } finally {
      lock.unlock();
    }
    if (!ready) {
      if (exited) {
        pipe.foundEmptyAfterExit();
      }
      return;
    }
    int read;
    try {
      read = Kernel.read(pipe.descriptor(), buffer, Math.min(room, buffer.byteSize()));
    } catch (KernelException _) {
      read = 0;
    }
    if (read == 0) {
      pipe.close();
      return;
    }
    if (exited) {
      pipe.readAfterExit(read);
    }
    lock.lock();
    try {
      if (pipe.spool != null && !released) {
        pipe.spool.append(buffer, read);
        changed.signalAll();
      }
    } finally {
      lock.unlock();
    }
  }

  /// The first process has exited.
  void exited(Kernel.Exit how) {
    lock.lock();
    try {
      exit = how;
      exitNanos = System.nanoTime();
      guarded.signalAll();
    } finally {
      lock.unlock();
    }
    pump.wake();
  }

  // Readers.

  /// One connection that reads this call's output. Guarded by the call's lock.
  static final class Attachment {
    private final Connection connection;
    private long stdoutSent;
    private long stderrSent;

    Attachment(Connection connection, long stdoutSent, long stderrSent) {
      this.connection = connection;
      this.stdoutSent = stdoutSent;
      this.stderrSent = stderrSent;
    }
  }

  /// Makes `connection` the one that reads; the one before is closed. The offsets acknowledge what
  /// comes before them.
  Attachment attach(Connection connection, long stdoutOffset, long stderrOffset)
      throws FailureException, InterruptedException {
    Attachment before;
    Attachment now;
    lock.lock();
    try {
      int _ = awaitStart();
      holds("stdout", stdout, stdoutOffset);
      holds("stderr", stderr, stderrOffset);
      stdout.acknowledge(stdoutOffset);
      stderr.acknowledge(stderrOffset);
      before = attached;
      now = new Attachment(connection, stdoutOffset, stderrOffset);
      attached = now;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
    pump.wake();
    if (before != null) {
      before.connection.close();
    }
    return now;
  }

  private static void holds(String name, Spool spool, long offset) throws FailureException {
    if (!spool.holds(offset)) {
      throw new FailureException(
          FailureCode.WRONG_OFFSET,
          name
              + " is kept from "
              + spool.acknowledged()
              + " to "
              + spool.end()
              + ", not "
              + offset);
    }
  }

  void detach(Attachment attachment) {
    lock.lock();
    try {
      if (attached == attachment) {
        attached = null;
      }
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /// In the sandbox.
  int pid() throws FailureException, InterruptedException {
    lock.lock();
    try {
      return awaitStart();
    } finally {
      lock.unlock();
    }
  }

  /// Waits for what comes next on this connection: [Message.Output] until all of it was given, then
  /// [Message.Ended].
  ///
  /// @return null when another connection has taken over, or the call was released
  @Nullable Message next(Attachment attachment) throws InterruptedException {
    lock.lock();
    try {
      while (true) {
        if (attached != attachment || released) {
          return null;
        }
        if (attachment.stdoutSent < stdout.end()) {
          byte[] bytes = stdout.copy(attachment.stdoutSent, Limits.CHUNK_BYTES);
          Message output = new Message.Output(Channel.STDOUT, attachment.stdoutSent, bytes);
          attachment.stdoutSent += bytes.length;
          return output;
        }
        if (attachment.stderrSent < stderr.end()) {
          byte[] bytes = stderr.copy(attachment.stderrSent, Limits.CHUNK_BYTES);
          Message output = new Message.Output(Channel.STDERR, attachment.stderrSent, bytes);
          attachment.stderrSent += bytes.length;
          return output;
        }
        if (ended && exit != null) {
          return new Message.Ended(
              cause == null ? EndCause.SELF : cause,
              exit.code(),
              exit.signal(),
              stdout.end(),
              stderr.end(),
              exit.cpuMicros(),
              exit.peakMemoryBytes(),
              TimeUnit.NANOSECONDS.toMillis(exitNanos - startNanos));
        }
        changed.await();
      }
    } finally {
      lock.unlock();
    }
  }

  /// The control plane has committed this channel up to `offset`.
  void acknowledge(Attachment attachment, Channel channel, long offset) throws FailureException {
    boolean freed;
    lock.lock();
    try {
      if (attached != attachment) {
        return;
      }
      Spool spool =
          switch (channel) {
            case STDOUT -> stdout;
            case STDERR -> stderr;
            case PTY ->
                throw new FailureException(FailureCode.BAD_REQUEST, "this process has no terminal");
          };
      long sent = channel == Channel.STDOUT ? attachment.stdoutSent : attachment.stderrSent;
      if (offset > sent) {
        throw new FailureException(
            FailureCode.WRONG_OFFSET,
            channel.wireName() + " was sent up to " + sent + ", not " + offset);
      }
      freed = spool.acknowledge(offset);
    } finally {
      lock.unlock();
    }
    if (freed) {
      pump.wake();
    }
  }

  // What is done to the process.

  /// Waits for the start, then for room in the pipe.
  StdinPipe stdin() throws FailureException, InterruptedException {
    lock.lock();
    try {
      int _ = awaitStart();
      if (stdin == null) {
        throw new IllegalStateException("started without a stdin");
      }
      return stdin;
    } finally {
      lock.unlock();
    }
  }

  void signal(int signal) throws FailureException, InterruptedException, KernelException {
    new ProcessSession(pid()).signal(signal);
  }

  /// Sends TERM now and KILL after the grace to the whole session, also to those that outlive the
  /// first process. Asked for again it can only shorten the grace.
  void terminate(long graceMillis, EndCause why) throws FailureException, InterruptedException {
    boolean begin;
    lock.lock();
    try {
      int _ = awaitStart();
      long now = System.nanoTime();
      if (exit == null && cause == null) {
        cause = why;
      }
      terminateAtNanos = now;
      long killAt = now + nanos(graceMillis);
      killAtNanos = killAtNanos == Long.MAX_VALUE ? killAt : Math.min(killAtNanos, killAt);
      begin = !guarding;
      guarding = true;
      guarded.signalAll();
    } finally {
      lock.unlock();
    }
    if (begin) {
      startGuard(graceMillis);
    }
  }

  /// The control plane is done with the call: what still runs of its first process is ended, its
  /// output goes nowhere.
  void release() throws InterruptedException {
    boolean running;
    lock.lock();
    try {
      released = true;
      running = pid != 0 && exit == null;
      stdout.clear();
      stderr.clear();
      changed.signalAll();
    } finally {
      lock.unlock();
    }
    pump.wake();
    if (running) {
      try {
        terminate(0, EndCause.CANCELLED);
      } catch (FailureException e) {
        throw new IllegalStateException("a process that runs did not start", e);
      }
    }
  }

  boolean isReleased() {
    lock.lock();
    try {
      return released;
    } finally {
      lock.unlock();
    }
  }

  private static long nanos(long millis) {
    return TimeUnit.MILLISECONDS.toNanos(Math.min(millis, LONGEST_MILLIS));
  }

  private void startGuard(long graceMillis) {
    Thread _ = Thread.ofVirtual().name("guard").start(() -> guard(graceMillis));
  }

  /// Waits for the timeout or a termination, and carries it out.
  private void guard(long graceMillis) {
    try {
      if (!awaitTermination(graceMillis)) {
        return;
      }
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
      return;
    }
    try {
      ProcessSession session = new ProcessSession(pid);
      session.terminate();
      awaitGrace(session);
      if (!session.destroy()) {
        Log.warn("processes of call " + callId + " do not end");
      }
    } catch (KernelException e) {
      Log.warn("cannot terminate call " + callId, e);
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    } finally {
      lock.lock();
      try {
        guarding = false;
        killAtNanos = Long.MAX_VALUE;
      } finally {
        lock.unlock();
      }
    }
  }

  /// @return false when the process exited before anything had to be done; the guard is then off
  ///   duty, which a termination that comes later sees under the same lock
  private boolean awaitTermination(long graceMillis) throws InterruptedException {
    lock.lock();
    try {
      while (killAtNanos == Long.MAX_VALUE) {
        long left = terminateAtNanos - System.nanoTime();
        if (exit != null) {
          guarding = false;
          return false;
        }
        if (left <= 0) {
          cause = EndCause.TIMEOUT;
          killAtNanos = System.nanoTime() + nanos(graceMillis);
        } else {
          long _ = guarded.awaitNanos(left);
        }
      }
      return true;
    } finally {
      lock.unlock();
    }
  }

  private void awaitGrace(ProcessSession session) throws InterruptedException {
    while (true) {
      lock.lock();
      try {
        long left = killAtNanos - System.nanoTime();
        if (left <= 0) {
          return;
        }
        long _ = guarded.awaitNanos(Math.min(left, LOOK_NANOS));
      } finally {
        lock.unlock();
      }
      if (session.members().isEmpty()) {
        return;
      }
    }
  }
}
