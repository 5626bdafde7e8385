package dev.foredeck.driver.simulated;

import dev.foredeck.protocol.Channel;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Message.EndCause;
import dev.foredeck.protocol.Message.FailureCode;
import java.io.ByteArrayOutputStream;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// One scripted program: its spools, its stdin, how it ended, and who reads it. Behaves as a
/// process under the real agent: a full spool makes the program wait, nothing is dropped, and the
/// newest reader takes over.
///
/// All state is guarded by `lock`; one thread runs the program.
final class SimulatedProcess {
  static final int TERM = 15;
  static final int KILL = 9;

  /// Bytes of stdin that wait for the program, as a pipe has them.
  private static final int STDIN_BYTES = 64 * 1024;

  /// Bytes kept from the acknowledged offset on, at most [Limits#SPOOL_BYTES].
  private static final class Spool {
    private byte[] bytes = new byte[0];
    private long start;
    private int length;

    long end() {
      return start + length;
    }

    int room() {
      return Limits.SPOOL_BYTES - length;
    }

    void append(byte[] from, int offset, int count) {
      if (length + count > bytes.length) {
        int capacity = Math.min(Limits.SPOOL_BYTES, Math.max(length + count, bytes.length * 2));
        bytes = java.util.Arrays.copyOf(bytes, capacity);
      }
      System.arraycopy(from, offset, bytes, length, count);
      length += count;
    }

    void acknowledge(long offset) {
      int drop = (int) (offset - start);
      if (drop > 0) {
        System.arraycopy(bytes, drop, bytes, 0, length - drop);
        start = offset;
        length -= drop;
        if (length == 0) {
          bytes = new byte[0];
        }
      }
    }

    byte[] copy(long from) {
      int begin = (int) (from - start);
      int count = Math.min(length - begin, Limits.CHUNK_BYTES);
      return java.util.Arrays.copyOfRange(bytes, begin, begin + count);
    }
  }

  /// One connection that reads.
  static final class Attachment {
    private final Connection connection;
    private long stdoutSent;
    private long stderrSent;

    private Attachment(Connection connection, long stdoutSent, long stderrSent) {
      this.connection = connection;
      this.stdoutSent = stdoutSent;
      this.stderrSent = stderrSent;
    }
  }

  final String callId;
  final long pid;
  private final Pace pace;
  private final long startedMillis;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final Spool stdout = new Spool();
  private final Spool stderr = new Spool();
  private final ByteArrayOutputStream stdin = new ByteArrayOutputStream();
  private long stdinAccepted;
  private boolean stdinEnded;
  private @Nullable Attachment attached;
  private @Nullable Thread program;
  private boolean ignoresTerm;
  private int signal;
  private EndCause cause = EndCause.SELF;
  private boolean released;
  private Message.@Nullable Ended ended;

  SimulatedProcess(String callId, long pid, boolean stdin, Pace pace) {
    this.callId = callId;
    this.pid = pid;
    this.stdinEnded = !stdin;
    this.pace = pace;
    this.startedMillis = pace.millis();
  }

  // The program's side.

  /// Runs the program on a thread of its own.
  void start(Programs.Program body, long timeoutMillis, long graceMillis) {
    Thread thread =
        Thread.ofVirtual()
            .name("simulated " + callId)
            .unstarted(() -> {
              int exitCode;
              try {
                exitCode = body.run(this);
              } catch (InterruptedException _) {
                exitCode = 128;
              }
              finish(exitCode);
            });
    Thread timer =
        Thread.ofVirtual()
            .name("timeout " + callId)
            .unstarted(() -> {
              try {
                pace.sleep(timeoutMillis);
                terminate(graceMillis, EndCause.TIMEOUT);
                thread.join();
              } catch (InterruptedException _) {
                // It has ended in time.
              }
            });
    lock.lock();
    try {
      program = thread;
    } finally {
      lock.unlock();
    }
    timer.start();
    thread.start();
    Thread.ofVirtual()
        .start(() -> {
          try {
            thread.join();
          } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
          }
          timer.interrupt();
        });
  }

  Pace pace() {
    return pace;
  }

  void ignoreTerm() {
    lock.lock();
    try {
      ignoresTerm = true;
    } finally {
      lock.unlock();
    }
  }

  /// Writes all of it, waiting while the spool is full.
  void write(Channel channel, byte[] bytes) throws InterruptedException {
    lock.lockInterruptibly();
    try {
      Spool spool = spool(channel);
      int done = 0;
      while (done < bytes.length) {
        while (spool.room() == 0 && !released) {
          changed.await();
        }
        checkSignal();
        int count = Math.min(bytes.length - done, spool.room());
        if (released) {
          return;
        }
        spool.append(bytes, done, count);
        done += count;
        changed.signalAll();
      }
    } finally {
      lock.unlock();
    }
  }

  /// What came on stdin since the last call, waiting for it.
  ///
  /// @return null at its end
  byte @Nullable [] readStdin() throws InterruptedException {
    lock.lockInterruptibly();
    try {
      while (stdin.size() == 0 && !stdinEnded) {
        checkSignal();
        changed.await();
      }
      if (stdin.size() == 0) {
        return null;
      }
      byte[] bytes = stdin.toByteArray();
      stdin.reset();
      changed.signalAll();
      return bytes;
    } finally {
      lock.unlock();
    }
  }

  /// Between two steps of a program: has somebody sent a signal?
  void checkSignal() throws InterruptedException {
    lock.lock();
    try {
      if (signal != 0) {
        throw new InterruptedException("signal " + signal);
      }
    } finally {
      lock.unlock();
    }
  }

  private void finish(int exitCode) {
    lock.lock();
    try {
      ended =
          new Message.Ended(
              cause,
              signal == 0 ? exitCode : 0,
              signal,
              stdout.end(),
              stderr.end(),
              0,
              0,
              pace.millis() - startedMillis);
      stdinEnded = true;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  // Signals.

  boolean hasEnded() {
    lock.lock();
    try {
      return ended != null;
    } finally {
      lock.unlock();
    }
  }

  void signal(int number) {
    lock.lock();
    try {
      boolean deadly = number == KILL || (!ignoresTerm && (number == TERM || number == 2));
      if (ended == null && signal == 0 && deadly) {
        signal = number;
        if (program != null) {
          program.interrupt();
        }
        changed.signalAll();
      }
    } finally {
      lock.unlock();
    }
  }

  /// TERM now, KILL after the grace.
  void terminate(long graceMillis, EndCause why) {
    lock.lock();
    try {
      if (ended != null) {
        return;
      }
      if (cause == EndCause.SELF) {
        cause = why;
      }
    } finally {
      lock.unlock();
    }
    signal(TERM);
    Thread.ofVirtual()
        .start(() -> {
          try {
            pace.sleep(graceMillis);
            signal(KILL);
          } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
          }
        });
  }

  // The readers' side.

  /// Makes `connection` the one that reads; the one before is closed.
  Attachment attach(Connection connection, long stdoutOffset, long stderrOffset)
      throws AgentFailure {
    Attachment now = new Attachment(connection, stdoutOffset, stderrOffset);
    Attachment before;
    lock.lock();
    try {
      check(Channel.STDOUT, stdoutOffset, stdout.end());
      check(Channel.STDERR, stderrOffset, stderr.end());
      stdout.acknowledge(stdoutOffset);
      stderr.acknowledge(stderrOffset);
      before = attached;
      attached = now;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
    if (before != null) {
      before.connection.close();
    }
    return now;
  }

  /// Waits for what comes next on this connection.
  ///
  /// @return null when another connection has taken over, or the call was released
  @Nullable Message next(Attachment attachment) throws InterruptedException {
    lock.lockInterruptibly();
    try {
      while (attached == attachment && !released) {
        if (attachment.stdoutSent < stdout.end()) {
          byte[] bytes = stdout.copy(attachment.stdoutSent);
          Message output = new Message.Output(Channel.STDOUT, attachment.stdoutSent, bytes);
          attachment.stdoutSent += bytes.length;
          return output;
        }
        if (attachment.stderrSent < stderr.end()) {
          byte[] bytes = stderr.copy(attachment.stderrSent);
          Message output = new Message.Output(Channel.STDERR, attachment.stderrSent, bytes);
          attachment.stderrSent += bytes.length;
          return output;
        }
        if (ended != null) {
          return ended;
        }
        changed.await();
      }
      return null;
    } finally {
      lock.unlock();
    }
  }

  void acknowledge(Attachment attachment, Channel channel, long offset) throws AgentFailure {
    lock.lock();
    try {
      if (attached == attachment) {
        check(
            channel,
            offset,
            channel == Channel.STDOUT ? attachment.stdoutSent : attachment.stderrSent);
        spool(channel).acknowledge(offset);
        changed.signalAll();
      }
    } finally {
      lock.unlock();
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

  /// @return bytes of stdin accepted in all
  long writeStdin(long offset, byte[] bytes, boolean end)
      throws AgentFailure, InterruptedException {
    lock.lockInterruptibly();
    try {
      if (offset > stdinAccepted) {
        throw new AgentFailure(
            FailureCode.WRONG_OFFSET, "stdin goes on at offset " + stdinAccepted);
      }
      while (stdinAccepted < offset + bytes.length) {
        if (stdinEnded) {
          throw new AgentFailure(FailureCode.STDIN_CLOSED, "the process reads no stdin");
        }
        int from = (int) (stdinAccepted - offset);
        int count = Math.min(bytes.length - from, STDIN_BYTES - stdin.size());
        if (count > 0) {
          stdin.write(bytes, from, count);
          stdinAccepted += count;
          changed.signalAll();
        } else {
          changed.await();
        }
      }
      if (end && stdinAccepted == offset + bytes.length) {
        stdinEnded = true;
        changed.signalAll();
      }
      return stdinAccepted;
    } finally {
      lock.unlock();
    }
  }

  /// Nobody will read it any more.
  void release() {
    lock.lock();
    try {
      released = true;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /// The sandbox is gone, and everything in it.
  void vanish() {
    Attachment reader;
    lock.lock();
    try {
      released = true;
      reader = attached;
      changed.signalAll();
      if (program != null) {
        signal = KILL;
        program.interrupt();
      }
    } finally {
      lock.unlock();
    }
    if (reader != null) {
      reader.connection.close();
    }
  }

  private Spool spool(Channel channel) {
    return channel == Channel.STDERR ? stderr : stdout;
  }

  private void check(Channel channel, long offset, long sent) throws AgentFailure {
    if (channel == Channel.PTY) {
      throw new AgentFailure(FailureCode.BAD_REQUEST, "this process has no terminal");
    }
    long start = spool(channel).start;
    if (offset < start || offset > sent) {
      throw new AgentFailure(
          FailureCode.WRONG_OFFSET,
          channel.wireName() + " is kept from " + start + " to " + sent + ", not " + offset);
    }
  }
}
