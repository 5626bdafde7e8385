package dev.foredeck.driver.host;

import dev.foredeck.core.driver.DriverException;
import java.time.Duration;

/// When a verb must have ended, on the clock that never jumps.
public record Deadline(long nanos) {
  public static Deadline in(Duration timeout) {
    return new Deadline(System.nanoTime() + timeout.toNanos());
  }

  public long remainingNanos() {
    return nanos - System.nanoTime();
  }

  public boolean passed() {
    return remainingNanos() <= 0;
  }

  /// The earlier of this and `timeout` from now: no single step may use up a generous deadline.
  public Deadline atMost(Duration timeout) {
    Deadline other = in(timeout);
    return other.nanos - nanos < 0 ? other : this;
  }

  /// @param doing what the caller is about to do, as `mount the disk`
  public void check(String doing) throws DriverException.Failed {
    if (passed()) {
      throw new DriverException.Failed("the deadline passed before Foredeck could " + doing);
    }
  }

  /// Waits a little, for something that the kernel is about to do.
  public void pause(String waitingFor) throws DriverException.Failed {
    pause(waitingFor, 3);
  }

  /// @param millis to wait, which may pass the deadline
  public void pause(String waitingFor, long millis) throws DriverException.Failed {
    check(waitingFor);
    try {
      Thread.sleep(millis);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new DriverException.Failed("interrupted before Foredeck could " + waitingFor, e);
    }
  }
}
