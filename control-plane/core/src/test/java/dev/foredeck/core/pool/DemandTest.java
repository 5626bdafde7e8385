package dev.foredeck.core.pool;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.time.Duration;
import java.time.Instant;
import org.junit.jupiter.api.Test;

final class DemandTest {
  private static final Instant NOW = Instant.parse("2026-05-04T10:11:12Z");
  private static final Duration MINUTE = Duration.ofMinutes(1);
  private static final Duration LEAD = Duration.ofSeconds(30);

  private static Demand steady(int perMinute, Duration during) {
    Demand demand = Demand.none(NOW, MINUTE);
    long stepMillis = 60_000 / perMinute;
    for (long at = 0; at < during.toMillis(); at += stepMillis) {
      demand = demand.claimed(NOW.plusMillis(at));
    }
    return demand;
  }

  @Test
  void isTheRateOfASteadyStream() {
    Duration during = Duration.ofMinutes(10);
    for (int perMinute : new int[] {6, 60, 600}) {
      assertThat(steady(perMinute, during).perMinute(NOW.plus(during)))
          .isCloseTo(perMinute, within(perMinute * 0.07));
    }
  }

  @Test
  void halvesWithEveryHalfLife() {
    Demand demand = steady(60, Duration.ofMinutes(5));
    Instant then = NOW.plus(Duration.ofMinutes(5));
    double rate = demand.perMinute(then);
    assertThat(demand.perMinute(then.plus(MINUTE))).isCloseTo(rate / 2, within(1e-9));
    assertThat(demand.perMinute(then.plus(Duration.ofHours(1)))).isLessThan(1e-9);
  }

  @Test
  void isNotMadeHeavierByAClockThatIsSetBack() {
    Demand demand = steady(60, Duration.ofMinutes(5));
    Instant then = NOW.plus(Duration.ofMinutes(5));
    double rate = demand.perMinute(then);
    assertThat(demand.perMinute(NOW.minus(Duration.ofDays(1)))).isLessThanOrEqualTo(rate * 1.02);
    Demand next = demand.claimed(NOW.minus(Duration.ofDays(1)));
    assertThat(next.perMinute(then)).isCloseTo(rate, within(1.0));
  }

  @Test
  void theTargetIsWhatIsAskedForWithinTheLead() {
    PoolSize size = new PoolSize(1, 8);
    assertThat(size.target(0, LEAD)).isEqualTo(1);
    assertThat(size.target(2, LEAD)).isEqualTo(1);
    assertThat(size.target(2.1, LEAD)).isEqualTo(2);
    assertThat(size.target(10, LEAD)).isEqualTo(5);
    assertThat(size.target(1e9, LEAD)).isEqualTo(8);
    assertThat(new PoolSize(0, 3).target(0, LEAD)).isZero();
  }

  @Test
  void aSizeIsNeverUpsideDownNorEndless() {
    for (int[] wrong : new int[][] {{-1, 2}, {3, 2}, {0, PoolSize.MOST + 1}}) {
      assertThatThrownBy(() -> new PoolSize(wrong[0], wrong[1]))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining(wrong[0] + "-" + wrong[1]);
    }
  }

  @Test
  void pausesLongerAfterEachFailureUpToALimit() {
    PoolPace pace = PoolPace.DEFAULT;
    assertThat(pace.pause(1)).isEqualTo(Duration.ofSeconds(1));
    assertThat(pace.pause(2)).isEqualTo(Duration.ofSeconds(2));
    assertThat(pace.pause(5)).isEqualTo(Duration.ofSeconds(16));
    assertThat(pace.pause(7)).isEqualTo(Duration.ofSeconds(60));
    assertThat(pace.pause(Integer.MAX_VALUE)).isEqualTo(Duration.ofSeconds(60));
  }
}
