package dev.foredeck.core.kit;

import dev.foredeck.protocol.Channel;
import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.Message;
import java.io.ByteArrayOutputStream;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// A process of a [FakeAgent]: its program runs on a virtual thread, its output waits in a bounded
/// spool until it is acknowledged, as the real agent's does.
public final class FakeProcess {
  private static final int SIGTERM = 15;
  private static final int SIGKILL = 9;

  final Message.StartProcess start;
  final long pid;
  private final FakeAgent agent;
  private final int spoolBytes;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final Map<Channel, Spool> spools = new EnumMap<>(Channel.class);
  private final ByteArrayOutputStream stdin = new ByteArrayOutputStream();
  private final List<Integer> signals = new ArrayList<>();
  private int stdinRead;
  private boolean stdinEnded;
  private boolean ignoresTerm;
  private int killedBy;
  private Message.EndCause cause = Message.EndCause.SELF;
  private Message.@Nullable Ended ended;

  /// What one channel holds; everything written is kept, for tests to compare with.
  private static final class Spool {
    private final ByteArrayOutputStream written = new ByteArrayOutputStream();
    private long acknowledged;
  }

  /// Ends the program from within its calls.
  static final class Killed extends RuntimeException {
    private static final long serialVersionUID = 1L;

    Killed() {
      super("killed", null, false, false);
    }
  }

  FakeProcess(FakeAgent agent, Message.StartProcess start, long pid, int spoolBytes) {
    this.agent = agent;
    this.start = start;
    this.pid = pid;
    this.spoolBytes = spoolBytes;
    spools.put(Channel.STDOUT, new Spool());
    spools.put(Channel.STDERR, new Spool());
  }

  void begin(Program program) {
    long began = System.nanoTime();
    Thread.ofVirtual()
        .name("process-" + start.callId())
        .start(() -> {
          int exit = 1;
          try {
            exit = program.run(this);
          } catch (Killed _) {
            exit = 0;
          } catch (InterruptedException | java.io.IOException e) {
            Thread.currentThread().interrupt();
          } finally {
            end(exit, began);
          }
        });
    Thread.ofVirtual()
        .name("timeout-" + start.callId())
        .start(() -> {
          if (!awaitEnd(start.timeoutMillis())) {
            terminate(start.graceMillis(), Message.EndCause.TIMEOUT);
          }
        });
  }

  private void end(int exit, long began) {
    lock.lock();
    try {
      ended =
          new Message.Ended(
              cause,
              killedBy == 0 ? exit : 0,
              killedBy,
              spool(Channel.STDOUT).written.size(),
              spool(Channel.STDERR).written.size(),
              1_000,
              1 << 20,
              (System.nanoTime() - began) / 1_000_000);
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  private boolean awaitEnd(long millis) {
    lock.lock();
    try {
      long left = java.time.Duration.ofMillis(millis).toNanos();
      while (ended == null && !agent.dead()) {
        if (left <= 0) {
          return false;
        }
        left = changed.awaitNanos(left);
      }
      return true;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return true;
    } finally {
      lock.unlock();
    }
  }

  // What programs call.

  public Message.StartProcess start() {
    return start;
  }

  public FakeAgent agent() {
    return agent;
  }

  /// Blocks while the spool is full.
  public void write(Channel channel, byte[] bytes) throws InterruptedException {
    int at = 0;
    while (at < bytes.length) {
      lock.lock();
      try {
        Spool spool = spool(channel);
        while (spool.written.size() - spool.acknowledged >= spoolBytes) {
          awaitAlive();
        }
        checkAlive();
        long room = spoolBytes - (spool.written.size() - spool.acknowledged);
        int n = (int) Math.min(room, bytes.length - at);
        spool.written.write(bytes, at, n);
        at += n;
        changed.signalAll();
      } finally {
        lock.unlock();
      }
    }
  }

  public void print(String text) throws InterruptedException {
    write(Channel.STDOUT, text.getBytes(java.nio.charset.StandardCharsets.UTF_8));
  }

  /// Blocks until somebody signals the process to death.
  public void waitForever() throws InterruptedException {
    lock.lock();
    try {
      while (true) {
        awaitAlive();
      }
    } finally {
      lock.unlock();
    }
  }

  public void ignoreTerm() {
    lock.lock();
    try {
      ignoresTerm = true;
    } finally {
      lock.unlock();
    }
  }

  /// Blocks until the process got this signal.
  public void awaitSignal(int signal) throws InterruptedException {
    lock.lock();
    try {
      while (!signals.contains(signal)) {
        awaitAlive();
      }
    } finally {
      lock.unlock();
    }
  }

  /// Everything on stdin up to its end.
  public byte[] readAll() throws InterruptedException {
    lock.lock();
    try {
      while (!stdinEnded) {
        awaitAlive();
      }
      stdinRead = stdin.size();
      return stdin.toByteArray();
    } finally {
      lock.unlock();
    }
  }

  /// One wait; every caller loops on its own condition.
  @SuppressWarnings("WaitNotInLoop")
  private void awaitAlive() throws InterruptedException {
    checkAlive();
    changed.await();
    checkAlive();
  }

  private void checkAlive() {
    if (killedBy != 0 || agent.dead()) {
      throw new Killed();
    }
  }

  private Spool spool(Channel channel) {
    Spool spool = spools.get(channel);
    if (spool == null) {
      throw new IllegalArgumentException("no such channel: " + channel);
    }
    return spool;
  }

  // What the agent calls.

  void wake() {
    lock.lock();
    try {
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  void signal(int signal) {
    lock.lock();
    try {
      signals.add(signal);
      if (signal == SIGKILL || (signal == SIGTERM && !ignoresTerm)) {
        killedBy = signal;
      }
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  void terminate(long graceMillis, Message.EndCause why) {
    lock.lock();
    try {
      if (ended != null) {
        return;
      }
      cause = why;
    } finally {
      lock.unlock();
    }
    signal(SIGTERM);
    Thread.ofVirtual()
        .name("grace-" + start.callId())
        .start(() -> {
          if (!awaitEnd(graceMillis)) {
            signal(SIGKILL);
          }
        });
  }

  void acknowledge(Channel channel, long offset) {
    lock.lock();
    try {
      Spool spool = spool(channel);
      if (offset > spool.written.size()) {
        throw new IllegalStateException("acknowledged what was never written");
      }
      spool.acknowledged = Math.max(spool.acknowledged, offset);
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  boolean has(Channel channel, long offset) {
    lock.lock();
    try {
      Spool spool = spool(channel);
      return offset >= spool.acknowledged && offset <= spool.written.size();
    } finally {
      lock.unlock();
    }
  }

  /// The next thing to tell: output beyond the offsets, or the end; null when the agent died.
  @Nullable Message next(long stdout, long stderr, java.util.function.BooleanSupplier gone)
      throws InterruptedException {
    lock.lock();
    try {
      while (!agent.dead() && !gone.getAsBoolean()) {
        byte[] out = after(Channel.STDOUT, stdout);
        if (out.length > 0) {
          return new Message.Output(Channel.STDOUT, stdout, out);
        }
        byte[] err = after(Channel.STDERR, stderr);
        if (err.length > 0) {
          return new Message.Output(Channel.STDERR, stderr, err);
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

  private byte[] after(Channel channel, long offset) {
    byte[] all = spool(channel).written.toByteArray();
    int from = (int) Math.min(offset, all.length);
    return java.util.Arrays.copyOfRange(all, from, Math.min(all.length, from + Limits.CHUNK_BYTES));
  }

  /// @return bytes accepted in all, or -1 for a wrong offset, -2 where stdin is closed
  public long stdin(long offset, byte[] bytes, boolean end) {
    lock.lock();
    try {
      if (!start.stdin() || ended != null) {
        return -2;
      }
      if (offset > stdin.size()) {
        return -1;
      }
      int known = (int) (stdin.size() - offset);
      if (known < bytes.length) {
        if (stdinEnded) {
          return -2;
        }
        stdin.write(bytes, known, bytes.length - known);
      }
      stdinEnded |= end;
      changed.signalAll();
      return stdin.size();
    } finally {
      lock.unlock();
    }
  }

  // What tests look at.

  public boolean running() {
    lock.lock();
    try {
      return ended == null;
    } finally {
      lock.unlock();
    }
  }

  public byte[] written(Channel channel) {
    lock.lock();
    try {
      return spool(channel).written.toByteArray();
    } finally {
      lock.unlock();
    }
  }

  public List<Integer> signals() {
    lock.lock();
    try {
      return List.copyOf(signals);
    } finally {
      lock.unlock();
    }
  }

  public int stdinRead() {
    lock.lock();
    try {
      return stdinRead;
    } finally {
      lock.unlock();
    }
  }
}
