package dev.foredeck.agent;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicBoolean;

/// Moves output from the pipes of all processes to their spools, says when a call has ended, and
/// tells writers of stdin when there is room. One thread waits for all descriptors: a thread or two
/// for each process would cost the sandbox memory and pids.
///
/// Threads: [#run] is one thread, to which everything belongs that is not final and concurrent.
final class Pump implements Runnable {
  private static final int READ_BYTES = 64 * 1024;

  /// Pipes that processes of ended calls still hold, and that are read so that a server left in the
  /// background is not ended by SIGPIPE. The oldest is closed when there are more.
  static final int LEFT_BEHIND = 64;

  /// Sources: wake-up, two pipes and a stdin for each known process, pipes left behind; with room
  /// for calls that were released and are not yet taken out.
  private static final int DESCRIPTORS = 1024;

  private final ConcurrentLinkedQueue<CallProcess> added = new ConcurrentLinkedQueue<>();
  private final Map<StdinPipe, Integer> writers = new ConcurrentHashMap<>();
  private final AtomicBoolean awake = new AtomicBoolean();
  private final Kernel.Pipe wakeUp;

  private final List<CallProcess> calls = new ArrayList<>();
  private final Deque<OutputPipe> leftBehind = new ArrayDeque<>();
  private final List<OutputPipe> polled = new ArrayList<>();
  private final List<CallProcess> owners = new ArrayList<>();
  private final List<StdinPipe> polledWriters = new ArrayList<>();

  Pump() throws KernelException {
    this.wakeUp = Kernel.pipe();
    Kernel.dontBlock(wakeUp.writeEnd(), Kernel.O_WRONLY);
    Kernel.dontBlock(wakeUp.readEnd(), 0);
  }

  /// Pumps a process that has started.
  void add(CallProcess call) {
    added.add(call);
    wake();
  }

  /// Makes the pump look at all sources again: room in a spool, an exit.
  void wake() {
    if (awake.compareAndSet(false, true)) {
      try (Arena arena = Arena.ofConfined()) {
        int _ = Kernel.write(wakeUp.writeEnd(), arena.allocate(1), 1);
      } catch (KernelException e) {
        if (e.errno() != Errno.EAGAIN) {
          throw new IllegalStateException("cannot wake the pump", e);
        }
        // Full of wake-ups already.
      }
    }
  }

  /// Wakes the writer, once, when the pipe has room or no reader.
  void awaitWritable(StdinPipe pipe, int descriptor) {
    writers.put(pipe, descriptor);
    wake();
  }

  @Override
  public void run() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment buffer = arena.allocate(READ_BYTES);
      Kernel.PollSet set = new Kernel.PollSet(arena, DESCRIPTORS);
      while (!Thread.currentThread().isInterrupted()) {
        turn(set, buffer);
      }
    } catch (KernelException e) {
      throw new IllegalStateException("the pump cannot go on", e);
    }
  }

  private void turn(Kernel.PollSet set, MemorySegment buffer) throws KernelException {
    long now = System.nanoTime();
    int timeoutMillis = -1;
    set.clear();
    polled.clear();
    owners.clear();
    polledWriters.clear();
    int wake = set.add(wakeUp.readEnd(), Kernel.POLLIN);
    for (CallProcess call = added.poll(); call != null; call = added.poll()) {
      calls.add(call);
    }
    for (Iterator<CallProcess> i = calls.iterator(); i.hasNext(); ) {
      CallProcess call = i.next();
      CallProcess.Watch watch = call.watch(now);
      if (watch.ended()) {
        call.pipes().forEach(this::leaveBehind);
        i.remove();
        continue;
      }
      for (OutputPipe pipe : watch.readable()) {
        set.add(pipe.descriptor(), Kernel.POLLIN);
        polled.add(pipe);
        owners.add(call);
      }
      if (watch.againInMillis() >= 0) {
        timeoutMillis =
            timeoutMillis < 0
                ? watch.againInMillis()
                : Math.min(timeoutMillis, watch.againInMillis());
      }
    }
    int firstLeftBehind = polled.size();
    for (OutputPipe pipe : leftBehind) {
      set.add(pipe.descriptor(), Kernel.POLLIN);
      polled.add(pipe);
    }
    for (Map.Entry<StdinPipe, Integer> writer : writers.entrySet()) {
      set.add(writer.getValue(), Kernel.POLLOUT);
      polledWriters.add(writer.getKey());
    }

    set.await(timeoutMillis);

    if (set.ready(wake)) {
      // In this order: what comes before the flag is cleared is seen by the next look at the
      // sources, what comes after it writes a byte that is still there for the next wait.
      drainWakeUps(buffer);
      awake.set(false);
    }
    for (int i = 0; i < firstLeftBehind; i++) {
      owners.get(i).pump(polled.get(i), set.ready(1 + i), buffer);
    }
    for (int i = firstLeftBehind; i < polled.size(); i++) {
      if (set.ready(1 + i)) {
        discard(polled.get(i), buffer);
      }
    }
    for (int i = 0; i < polledWriters.size(); i++) {
      if (set.ready(1 + polled.size() + i)) {
        StdinPipe writer = polledWriters.get(i);
        writers.remove(writer);
        writer.wake();
      }
    }
  }

  private void drainWakeUps(MemorySegment buffer) throws KernelException {
    try {
      int _ = Kernel.read(wakeUp.readEnd(), buffer, READ_BYTES);
    } catch (KernelException e) {
      if (e.errno() != Errno.EAGAIN) {
        throw e;
      }
    }
  }

  private void leaveBehind(OutputPipe pipe) {
    if (!pipe.isOpen()) {
      return;
    }
    pipe.spool = null;
    if (leftBehind.size() == LEFT_BEHIND) {
      leftBehind.removeFirst().close();
    }
    leftBehind.addLast(pipe);
  }

  private void discard(OutputPipe pipe, MemorySegment buffer) {
    int read;
    try {
      read = Kernel.read(pipe.descriptor(), buffer, READ_BYTES);
    } catch (KernelException _) {
      read = 0;
    }
    if (read == 0) {
      pipe.close();
      leftBehind.remove(pipe);
    }
  }
}
