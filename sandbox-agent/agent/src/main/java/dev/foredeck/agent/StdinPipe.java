package dev.foredeck.agent;

import dev.foredeck.protocol.Message.FailureCode;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;

/// Stdin of a process, by offset: bytes that were accepted before are skipped, so that a request
/// whose answer got lost can be repeated.
///
/// Threads: any; one write at a time goes on, the others wait. The descriptor is used and closed
/// only under the lock, except that the pump waits for it: what it may see of another file under
/// the same number only wakes a writer for nothing.
final class StdinPipe {
  private static final int CLOSED = -1;

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final Pump pump;
  private int descriptor;
  private long accepted;
  private boolean writing;

  /// Whether it was closed because the control plane said that no more comes.
  private boolean ended;

  /// @param descriptor the writing end, which does not block; or -1 where stdin is empty
  StdinPipe(Pump pump, int descriptor) {
    this.pump = pump;
    this.descriptor = descriptor;
    this.ended = descriptor == CLOSED;
  }

  /// Writes what was not accepted before, waiting while the pipe is full.
  ///
  /// @param abandoned whether whoever asked is gone; looked at after each [#wake]
  /// @return bytes accepted in all
  long write(long offset, byte[] bytes, boolean end, BooleanSupplier abandoned)
      throws FailureException, InterruptedException {
    lock.lock();
    try {
      while (writing) {
        changed.await();
        if (abandoned.getAsBoolean()) {
          throw new InterruptedException("abandoned");
        }
      }
      writing = true;
      try {
        writeAlone(offset, bytes, abandoned);
      } finally {
        writing = false;
        changed.signalAll();
      }
      if (end && offset + bytes.length == accepted) {
        closeLocked();
        ended = true;
      }
      return accepted;
    } finally {
      lock.unlock();
    }
  }

  private void writeAlone(long offset, byte[] bytes, BooleanSupplier abandoned)
      throws FailureException, InterruptedException {
    if (offset > accepted) {
      throw new FailureException(
          FailureCode.WRONG_OFFSET, "stdin goes on at offset " + accepted + ", not " + offset);
    }
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment copy = arena.allocate(Math.max(1, bytes.length));
      MemorySegment.copy(bytes, 0, copy, ValueLayout.JAVA_BYTE, 0, bytes.length);
      while (accepted < offset + bytes.length) {
        if (descriptor == CLOSED) {
          throw new FailureException(
              FailureCode.STDIN_CLOSED,
              ended ? "stdin was ended at offset " + accepted : "the process reads no stdin");
        }
        try {
          int done = (int) (accepted - offset);
          accepted += Kernel.write(descriptor, copy.asSlice(done), bytes.length - done);
        } catch (KernelException e) {
          if (e.errno() != Errno.EAGAIN) {
            closeLocked();
            throw new FailureException(
                FailureCode.STDIN_CLOSED, "the process has closed its stdin", e);
          }
          pump.awaitWritable(this, descriptor);
          changed.await();
          if (abandoned.getAsBoolean()) {
            throw new InterruptedException("abandoned");
          }
        }
      }
    }
  }

  /// Lets writers look again: the pipe may have room, or their connection may be gone.
  void wake() {
    lock.lock();
    try {
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /// No process is left to read. Idempotent.
  void close() {
    lock.lock();
    try {
      closeLocked();
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  private void closeLocked() {
    if (descriptor != CLOSED) {
      Kernel.close(descriptor);
      descriptor = CLOSED;
    }
  }
}
