package dev.foredeck.server;

import java.util.concurrent.atomic.AtomicLong;

/// How many bytes of request bodies may be in memory at once, over all requests. Nobody waits for
/// room: many that each have a part and wait for more would wait for each other.
///
/// Thread-safe.
final class BodyMemory {
  private final long most;
  private final AtomicLong taken = new AtomicLong();

  BodyMemory(long most) {
    this.most = most;
  }

  /// What one request has of it; nothing at first.
  Part part() {
    return new Part();
  }

  /// For tests: what is in use.
  long taken() {
    return taken.get();
  }

  /// Thread-safe.
  final class Part {
    private final AtomicLong held = new AtomicLong();

    /// @return whether there was room for `bytes` more
    boolean take(long bytes) {
      if (taken.addAndGet(bytes) > most) {
        taken.addAndGet(-bytes);
        return false;
      }
      held.addAndGet(bytes);
      return true;
    }

    /// Idempotent.
    void giveBack() {
      taken.addAndGet(-held.getAndSet(0));
    }
  }
}
