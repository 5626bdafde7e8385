package dev.foredeck.agent;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.protocol.Limits;
import java.io.ByteArrayOutputStream;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.Test;

class SpoolTest {
  @Test
  void givesBackWhatWasWrittenAtAnyOffset() {
    long seed = 11;
    Random random = new Random(seed);
    Spool.Budget budget = new Spool.Budget(64);
    Spool spool = new Spool(budget);
    ByteArrayOutputStream written = new ByteArrayOutputStream();
    for (int round = 0; round < 3000; round++) {
      byte[] bytes = new byte[Math.min(spool.room(), random.nextInt(40_000))];
      random.nextBytes(bytes);
      spool.append(MemorySegment.ofArray(bytes), bytes.length);
      written.writeBytes(bytes);
      long offset = spool.acknowledged() + random.nextLong(spool.end() - spool.acknowledged() + 1);
      byte[] copy = spool.copy(offset, 70_000);
      assertThat(copy)
          .as("seed %d round %d", seed, round)
          .isEqualTo(
              Arrays.copyOfRange(written.toByteArray(), (int) offset, (int) offset + copy.length));
      if (random.nextInt(3) == 0) {
        spool.acknowledge(offset);
      }
      if (written.size() > 2_000_000) {
        break;
      }
    }
    spool.clear();
    assertThat(budget.free()).isEqualTo(64);
  }

  @Test
  void isFullAtItsLimitAndHasRoomAgainOnceAcknowledged() {
    Spool spool = new Spool(new Spool.Budget(1000));
    while (spool.room() > 0) {
      int length = Math.min(spool.room(), 10_000);
      spool.append(MemorySegment.ofArray(new byte[length]), length);
    }
    assertThat(spool.end()).isEqualTo(Limits.SPOOL_BYTES);
    assertThat(spool.acknowledge(1)).isTrue();
    assertThat(spool.room()).isEqualTo(1);
    assertThat(spool.acknowledge(1)).isFalse();
  }

  @Test
  void keepsItsOwnBlocksWhereOthersTookAllThatIsShared() {
    Spool.Budget budget = new Spool.Budget(2);
    Spool greedy = new Spool(budget);
    int most = greedy.room();
    greedy.append(MemorySegment.ofArray(new byte[most]), most);
    assertThat(most).isEqualTo((Spool.OWN_BLOCKS + 2) * Spool.BLOCK_BYTES);
    assertThat(new Spool(budget).room()).isEqualTo(Spool.OWN_BLOCKS * Spool.BLOCK_BYTES);
    greedy.clear();
    assertThat(budget.free()).isEqualTo(2);
  }
}
