package dev.foredeck.agent;

import org.jspecify.annotations.Nullable;

/// The reading end of one channel of a process.
///
/// Threads: the pump alone, apart from the spool, which its process guards.
final class OutputPipe {
  private static final int CLOSED = -1;

  /// The largest capacity that a process may give to a pipe without privilege
  /// (`/proc/sys/fs/pipe-max-size`): after its exit no more than this can be left of its own
  /// output.
  private static final int PIPE_MAX_BYTES = 1024 * 1024;

  /// Null once the bytes belong to nobody.
  @Nullable Spool spool;

  private int descriptor;
  private boolean emptyAfterExit;
  private long bytesAfterExit;

  OutputPipe(int descriptor, Spool spool) {
    this.descriptor = descriptor;
    this.spool = spool;
  }

  int descriptor() {
    return descriptor;
  }

  boolean isOpen() {
    return descriptor != CLOSED;
  }

  void close() {
    if (isOpen()) {
      Kernel.close(descriptor);
      descriptor = CLOSED;
    }
  }

  /// A wait that began after the exit found nothing to read.
  void foundEmptyAfterExit() {
    emptyAfterExit = true;
  }

  void readAfterExit(int bytes) {
    bytesAfterExit += bytes;
  }

  /// Whether all that the first process wrote before its exit was read: what comes now is from
  /// processes that it left behind.
  boolean isDrainedOfTheFirstProcess() {
    return !isOpen() || emptyAfterExit || bytesAfterExit >= PIPE_MAX_BYTES;
  }
}
