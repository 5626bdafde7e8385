package dev.foredeck.driver.host;

import java.time.Duration;

/// Does something unless it is closed in time: for blocking calls that take no deadline, which a
/// close from another thread ends.
public final class Watchdog implements AutoCloseable {
  private final Thread thread;

  private Watchdog(Thread thread) {
    this.thread = thread;
  }

  public static Watchdog after(Duration wait, Runnable action) {
    return new Watchdog(
        Thread.ofVirtual()
            .start(() -> {
              try {
                Thread.sleep(wait);
              } catch (InterruptedException _) {
                return;
              }
              action.run();
            }));
  }

  @Override
  public void close() {
    thread.interrupt();
  }
}
