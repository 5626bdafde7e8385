package dev.foredeck.egress;

import java.nio.ByteBuffer;
import java.util.concurrent.ArrayBlockingQueue;

/// Direct buffers for use again: making one zeroes it and leaves its freeing to the garbage
/// collector, which is too slow for a connection's life. Thread-safe.
final class BufferPool {
  private static final int KEPT = 64;

  private final ArrayBlockingQueue<ByteBuffer> free = new ArrayBlockingQueue<>(KEPT);

  ByteBuffer take() {
    ByteBuffer buffer = free.poll();
    if (buffer == null) {
      return ByteBuffer.allocateDirect(EgressLimits.BUFFER_BYTES);
    }
    return buffer.clear();
  }

  /// Whoever gives a buffer back has made sure that no other thread still uses it: a mistake here
  /// would show one sandbox's bytes to another.
  void give(ByteBuffer buffer) {
    if (!free.offer(buffer)) {
      return; // Enough are kept; this one is the collector's.
    }
  }
}
