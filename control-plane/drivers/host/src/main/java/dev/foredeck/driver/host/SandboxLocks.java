package dev.foredeck.driver.host;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.DriverException;
import java.io.IOException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;

/// One verb at a time changes a sandbox.
public final class SandboxLocks {
  private static final int LOCKS = 1024;
  private final ReentrantLock[] locks = new ReentrantLock[LOCKS];

  public SandboxLocks() {
    for (int i = 0; i < LOCKS; i++) {
      locks[i] = new ReentrantLock();
    }
  }

  @FunctionalInterface
  public interface Work {
    void run() throws IOException, DriverException;
  }

  /// @param doing for a person, as `launch sbx1`
  public void locked(Id sandbox, Deadline deadline, String doing, Work work)
      throws DriverException {
    locked(locks[Math.floorMod(sandbox.hashCode(), LOCKS)], deadline, doing, work);
  }

  static void locked(ReentrantLock lock, Deadline deadline, String doing, Work work)
      throws DriverException {
    try {
      if (!lock.tryLock(Math.max(0, deadline.remainingNanos()), TimeUnit.NANOSECONDS)) {
        throw new DriverException.Failed("another verb was still at work: cannot " + doing);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new DriverException.Failed("interrupted: cannot " + doing, e);
    }
    try {
      work.run();
    } catch (IOException e) {
      throw failed(doing, e);
    } finally {
      lock.unlock();
    }
  }

  public static DriverException.Failed failed(String doing, IOException e) {
    return new DriverException.Failed("cannot " + doing + ": " + e, e);
  }
}
