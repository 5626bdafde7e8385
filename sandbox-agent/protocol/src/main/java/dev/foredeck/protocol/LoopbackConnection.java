package dev.foredeck.protocol;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.util.ArrayDeque;
import java.util.Queue;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;
import org.jspecify.annotations.Nullable;

/// Two connected ends in memory, for simulations and tests.
///
/// It behaves as a socket pair does: messages cross as frames (what [Wire] refuses is refused here
/// too), a sender waits for a reader that is behind, and what was sent before a close still
/// arrives.
public final class LoopbackConnection implements Connection {
  /// Bytes of frames that wait in one direction: as a socket's buffer, and at least one frame.
  private static final int QUEUE_BYTES = 256 * 1024;

  private final Direction incoming;
  private final Direction outgoing;

  private LoopbackConnection(Direction incoming, Direction outgoing) {
    this.incoming = incoming;
    this.outgoing = outgoing;
  }

  /// Two ends: what one sends, the other receives.
  public record Pair(LoopbackConnection left, LoopbackConnection right) {}

  /// A fresh pair of connected ends.
  public static Pair pair() {
    Direction toLeft = new Direction();
    Direction toRight = new Direction();
    return new Pair(
        new LoopbackConnection(toLeft, toRight), new LoopbackConnection(toRight, toLeft));
  }

  @Override
  public void send(Message message) throws IOException {
    outgoing.put(Wire.encode(message));
  }

  @Override
  public @Nullable Message receive() throws IOException {
    byte[] frame = incoming.take();
    if (frame == null) {
      return null;
    }
    return Wire.read(new java.io.ByteArrayInputStream(frame));
  }

  @Override
  public void close() {
    outgoing.endOfSender();
    incoming.endOfReceiver();
  }

  /// One direction. All state is guarded by `lock`.
  private static final class Direction {
    private final ReentrantLock lock = new ReentrantLock();
    private final Condition changed = lock.newCondition();
    private final Queue<byte[]> frames = new ArrayDeque<>();
    private int queuedBytes;
    private boolean senderClosed;
    private boolean receiverClosed;

    void put(byte[] frame) throws IOException {
      lock.lock();
      try {
        awaitWhile(() ->
            !senderClosed
                && !receiverClosed
                && !frames.isEmpty()
                && queuedBytes + frame.length > QUEUE_BYTES);
        if (senderClosed) {
          throw new IOException("the connection is closed");
        }
        if (receiverClosed) {
          throw new IOException("the other side has closed the connection");
        }
        frames.add(frame);
        queuedBytes += frame.length;
        changed.signalAll();
      } finally {
        lock.unlock();
      }
    }

    byte @Nullable [] take() throws IOException {
      lock.lock();
      try {
        awaitWhile(() -> !receiverClosed && !senderClosed && frames.isEmpty());
        if (receiverClosed) {
          throw new IOException("the connection is closed");
        }
        byte[] frame = frames.poll();
        if (frame != null) {
          queuedBytes -= frame.length;
          changed.signalAll();
        }
        return frame;
      } finally {
        lock.unlock();
      }
    }

    void endOfSender() {
      lock.lock();
      try {
        senderClosed = true;
        changed.signalAll();
      } finally {
        lock.unlock();
      }
    }

    void endOfReceiver() {
      lock.lock();
      try {
        receiverClosed = true;
        frames.clear();
        queuedBytes = 0;
        changed.signalAll();
      } finally {
        lock.unlock();
      }
    }

    private void awaitWhile(BooleanSupplier waiting) throws InterruptedIOException {
      try {
        while (waiting.getAsBoolean()) {
          changed.await();
        }
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        InterruptedIOException interrupted = new InterruptedIOException("interrupted");
        interrupted.initCause(e);
        throw interrupted;
      }
    }
  }
}
