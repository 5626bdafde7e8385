package dev.foredeck.driver.simulated;

import java.time.Duration;

/// Time, as the simulated sandboxes see it: a simulation may let an hour pass at once.
public interface Pace {
  /// Milliseconds that never go back; only differences mean something.
  long millis();

  void sleep(long millis) throws InterruptedException;

  /// The time of this machine.
  static Pace real() {
    return new Pace() {
      @Override
      public long millis() {
        return System.nanoTime() / 1_000_000;
      }

      @Override
      public void sleep(long millis) throws InterruptedException {
        Thread.sleep(Duration.ofMillis(Math.max(0, millis)));
      }
    };
  }
}
