package dev.foredeck.egress;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;

class ThrottleTest {
  @Test
  void spreadsBytesOverTime() {
    AtomicLong now = new AtomicLong();
    try (Throttle throttle = new Throttle(1000, now::get)) {
      assertThat(throttle.reserve(1000)).isZero();
      assertThat(throttle.reserve(500)).isEqualTo(500_000_000L);
      assertThat(throttle.reserve(500)).isEqualTo(1_000_000_000L);
      now.addAndGet(1_500_000_000L);
      assertThat(throttle.reserve(500)).isZero();
      now.addAndGet(3_600_000_000_000L);
      assertThat(throttle.reserve(1000)).as("the burst is one second's worth").isZero();
      assertThat(throttle.reserve(1)).isPositive();
    }
  }
}
