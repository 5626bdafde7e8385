package dev.foredeck.egress;

import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.LongSupplier;

/// A token bucket that makes its users wait. Each reserves its tokens at once and waits for its own
/// turn, so nobody starves. Thread-safe.
final class Throttle implements AutoCloseable {
  private static final double NANOS_PER_SECOND = 1e9;

  private final double perNano;
  private final double burst;
  private final LongSupplier nanoTime;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition closing = lock.newCondition();
  private double tokens;
  private long asOfNanos;
  private boolean closed;

  /// @param perSecond also the burst: what may be taken at once after a quiet second
  Throttle(long perSecond, LongSupplier nanoTime) {
    this.perNano = perSecond / NANOS_PER_SECOND;
    this.burst = perSecond;
    this.nanoTime = nanoTime;
    this.tokens = perSecond;
    this.asOfNanos = nanoTime.getAsLong();
  }

  /// Takes tokens and waits until they are due, or until this is closed.
  ///
  /// @return false where this is closed
  boolean take(long count) throws InterruptedException {
    lock.lock();
    try {
      long waitNanos = reserve(count);
      while (waitNanos > 0 && !closed) {
        waitNanos = closing.awaitNanos(waitNanos);
      }
      return !closed;
    } finally {
      lock.unlock();
    }
  }

  /// @return nanoseconds until the tokens are due
  long reserve(long count) {
    lock.lock();
    try {
      long now = nanoTime.getAsLong();
      tokens = Math.min(burst, tokens + (now - asOfNanos) * perNano) - count;
      asOfNanos = now;
      if (tokens >= 0) {
        return 0;
      }
      return (long) (-tokens / perNano);
    } finally {
      lock.unlock();
    }
  }

  @Override
  public void close() {
    lock.lock();
    try {
      closed = true;
      closing.signalAll();
    } finally {
      lock.unlock();
    }
  }
}
