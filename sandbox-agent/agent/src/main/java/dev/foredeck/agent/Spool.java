package dev.foredeck.agent;

import dev.foredeck.protocol.Limits;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayDeque;
import java.util.concurrent.atomic.AtomicInteger;

/// The output of one channel between what the control plane has committed and what the process has
/// written, by offset. Never drops a byte: when it is full, [#room] is 0 and the pipe waits.
///
/// Threads: guarded by the lock of the process that owns it; only the pump appends, in any process,
/// so that nobody else takes from the [Budget] between [#room] and [#append].
final class Spool {
  static final int BLOCK_BYTES = 16 * 1024;

  /// Blocks that a channel gets whatever the others hold, so that it cannot be starved.
  static final int OWN_BLOCKS = 4;

  private final Budget budget;
  private final ArrayDeque<byte[]> blocks = new ArrayDeque<>();

  /// Offset of the first byte of the first block.
  private long blocksStart;

  private long acknowledged;
  private long end;

  Spool(Budget budget) {
    this.budget = budget;
  }

  /// The blocks that all channels share beyond their own: 64 processes with two full spools each
  /// would not fit into the agent's memory.
  static final class Budget {
    private final AtomicInteger free;

    Budget(int blocks) {
      this.free = new AtomicInteger(blocks);
    }

    int free() {
      return free.get();
    }
  }

  /// Length of all that the channel has written.
  long end() {
    return end;
  }

  long acknowledged() {
    return acknowledged;
  }

  /// How many bytes [#append] takes now.
  int room() {
    long capacity = (long) blocks.size() * BLOCK_BYTES - (end - blocksStart);
    int own = Math.max(0, OWN_BLOCKS - blocks.size());
    capacity += (long) (own + budget.free()) * BLOCK_BYTES;
    return (int) Math.min(capacity, Limits.SPOOL_BYTES - (end - acknowledged));
  }

  /// @param length at most [#room]
  void append(MemorySegment from, int length) {
    if (length > room()) {
      throw new IllegalStateException(length + " bytes where " + room() + " fit");
    }
    int done = 0;
    while (done < length) {
      int used = (int) ((end - blocksStart) % BLOCK_BYTES);
      if (end - blocksStart == (long) blocks.size() * BLOCK_BYTES) {
        if (blocks.size() >= OWN_BLOCKS) {
          budget.free.decrementAndGet();
        }
        blocks.addLast(new byte[BLOCK_BYTES]);
        used = 0;
      }
      int piece = Math.min(length - done, BLOCK_BYTES - used);
      MemorySegment.copy(from, ValueLayout.JAVA_BYTE, done, blocks.getLast(), used, piece);
      end += piece;
      done += piece;
    }
  }

  /// Whether bytes up to this offset are neither forgotten nor unwritten.
  boolean holds(long offset) {
    return offset >= acknowledged && offset <= end;
  }

  /// A copy of at most `max` bytes from `offset` on.
  ///
  /// @param offset one that the spool [#holds]
  byte[] copy(long offset, int max) {
    if (!holds(offset)) {
      throw new IllegalStateException(offset + " is not in " + acknowledged + ".." + end);
    }
    byte[] copy = new byte[(int) Math.min(max, end - offset)];
    long blockStart = blocksStart;
    int done = 0;
    for (byte[] block : blocks) {
      if (done == copy.length) {
        break;
      }
      long at = offset + done - blockStart;
      if (at < BLOCK_BYTES) {
        int piece = Math.min(copy.length - done, BLOCK_BYTES - (int) at);
        System.arraycopy(block, (int) at, copy, done, piece);
        done += piece;
      }
      blockStart += BLOCK_BYTES;
    }
    return copy;
  }

  /// Forgets the bytes before `offset`. An offset that was acknowledged before changes nothing.
  ///
  /// @return whether there is room now that was not there
  boolean acknowledge(long offset) {
    if (offset > end) {
      throw new IllegalStateException(offset + " is beyond the end at " + end);
    }
    if (offset <= acknowledged) {
      return false;
    }
    acknowledged = offset;
    while (!blocks.isEmpty() && blocksStart + BLOCK_BYTES <= acknowledged) {
      dropFirst();
    }
    return true;
  }

  /// Gives all blocks back.
  void clear() {
    acknowledge(end);
    while (!blocks.isEmpty()) {
      dropFirst();
    }
    blocksStart = end;
  }

  private void dropFirst() {
    if (blocks.size() > OWN_BLOCKS) {
      budget.free.incrementAndGet();
    }
    blocks.removeFirst();
    blocksStart += BLOCK_BYTES;
  }
}
