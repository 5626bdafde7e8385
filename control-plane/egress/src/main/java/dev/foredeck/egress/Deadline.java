package dev.foredeck.egress;

import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.LongSupplier;
import org.jspecify.annotations.Nullable;

/// A connection's time limits: one for the whole, one for the phase that it is in. Blocking
/// channels have no time-outs of their own, so a timer ends the connection from outside. Moving
/// bytes costs one volatile write; the timer looks again when the phase would have ended.
/// Thread-safe.
final class Deadline implements AutoCloseable {
  /// @param idle whether nothing moved, as opposed to something that took too long
  record Expiry(boolean idle, String reason) {}

  private static final long NANOS_PER_MILLI = 1_000_000;

  private final ScheduledExecutorService timer;
  private final LongSupplier nanoTime;
  private final Consumer<Expiry> onExpired;
  private final long totalAtNanos;
  private final String totalReason;
  private volatile long lastActiveNanos;
  private boolean sliding;
  private long phaseStartNanos;
  private long phaseNanos;
  private String phaseReason;
  private boolean over;
  private @Nullable ScheduledFuture<?> next;

  /// @param onExpired told once, by the timer's thread, which limit was reached
  Deadline(
      ScheduledExecutorService timer,
      LongSupplier nanoTime,
      long totalMillis,
      Consumer<Expiry> onExpired) {
    this.timer = timer;
    this.nanoTime = nanoTime;
    this.onExpired = onExpired;
    this.phaseStartNanos = nanoTime.getAsLong();
    this.lastActiveNanos = phaseStartNanos;
    this.totalAtNanos = lastActiveNanos + totalMillis * NANOS_PER_MILLI;
    this.totalReason = "the connection lasted longer than " + totalMillis + " ms";
    this.phaseNanos = totalMillis * NANOS_PER_MILLI;
    this.phaseReason = totalReason;
  }

  /// Starts a phase that must be over in time, bytes or not.
  void within(long millis, String what) {
    start(false, millis, what + " took longer than " + millis + " ms");
  }

  /// Starts a phase that lasts while bytes move.
  void whileActive(long millis) {
    start(true, millis, "no byte moved for " + millis + " ms");
  }

  void touch() {
    lastActiveNanos = nanoTime.getAsLong();
  }

  private synchronized void start(boolean slides, long millis, String reason) {
    sliding = slides;
    phaseNanos = millis * NANOS_PER_MILLI;
    phaseReason = reason;
    phaseStartNanos = nanoTime.getAsLong();
    lastActiveNanos = phaseStartNanos;
    schedule();
  }

  private synchronized void schedule() {
    if (over) {
      return;
    }
    if (next != null) {
      next.cancel(false);
    }
    long wait = Math.max(0, dueNanos() - nanoTime.getAsLong());
    try {
      next = timer.schedule(this::look, wait, TimeUnit.NANOSECONDS);
    } catch (RejectedExecutionException _) {
      over = true; // The gateway is closing and ends every connection itself.
    }
  }

  private long dueNanos() {
    long phaseAt = phaseStartNanos + phaseNanos;
    if (sliding) {
      phaseAt = lastActiveNanos + phaseNanos;
    }
    if (phaseAt - totalAtNanos < 0) {
      return phaseAt;
    }
    return totalAtNanos;
  }

  private void look() {
    Expiry expiry;
    synchronized (this) {
      long now = nanoTime.getAsLong();
      if (over) {
        return;
      }
      if (dueNanos() - now > 0) {
        schedule();
        return;
      }
      over = true;
      if (totalAtNanos - now <= 0) {
        expiry = new Expiry(false, totalReason);
      } else {
        expiry = new Expiry(sliding, phaseReason);
      }
    }
    onExpired.accept(expiry);
  }

  @Override
  public synchronized void close() {
    over = true;
    if (next != null) {
      next.cancel(false);
    }
  }
}
