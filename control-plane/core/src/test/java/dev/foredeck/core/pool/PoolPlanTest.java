package dev.foredeck.core.pool;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.Resources;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;

final class PoolPlanTest {
  private static final Instant NOW = Instant.parse("2026-05-04T10:11:12Z");
  private static final Duration MAX_AGE = Duration.ofHours(1);
  private final Ids ids = new Ids(Clock.fixed(NOW, ZoneOffset.UTC), new Random(1));

  private List<WarmSandbox> aged(long... minutes) {
    List<WarmSandbox> made = new ArrayList<>();
    for (long age : minutes) {
      Instant then = NOW.minus(Duration.ofMinutes(age));
      made.add(
          new WarmSandbox(
              ids.sandbox(),
              "here",
              "host",
              new Resources(1000, 1, 1, 64),
              "default@1",
              WarmSandbox.State.WARM,
              "boot",
              then,
              then,
              then.plus(Duration.ofDays(1))));
    }
    return made;
  }

  private static PoolPlan plan(int target, List<WarmSandbox> free, int coming) {
    return PoolPlan.of(target, free, coming, MAX_AGE, NOW);
  }

  private static List<Id> ids(List<WarmSandbox> warm) {
    return warm.stream().map(WarmSandbox::id).toList();
  }

  @Test
  void makesWhatIsMissingAndNotUnderWay() {
    assertThat(plan(5, aged(1, 1), 1)).isEqualTo(new PoolPlan(2, List.of()));
    assertThat(plan(2, aged(1), 4)).isEqualTo(new PoolPlan(0, List.of()));
    assertThat(plan(0, aged(), 0)).isEqualTo(new PoolPlan(0, List.of()));
  }

  @Test
  void givesUpTheOldestOfTooMany() {
    List<WarmSandbox> free = aged(30, 20, 10);
    assertThat(plan(1, free, 0)).isEqualTo(new PoolPlan(0, ids(free.subList(0, 2))));
    assertThat(plan(0, free, 0)).isEqualTo(new PoolPlan(0, ids(free)));
  }

  @Test
  void keepsAnOldOneUntilItsReplacementIsThere() {
    List<WarmSandbox> old = aged(61, 61);
    assertThat(plan(2, old, 0)).isEqualTo(new PoolPlan(2, List.of()));
    List<WarmSandbox> one = new ArrayList<>(old);
    one.addAll(aged(0));
    assertThat(plan(2, one, 1)).isEqualTo(new PoolPlan(0, List.of()));
    one.addAll(aged(0));
    assertThat(plan(2, one, 0)).isEqualTo(new PoolPlan(0, ids(old)));
  }

  @Test
  void keepsNoneBeyondTwiceItsAge() {
    List<WarmSandbox> ancient = aged(121);
    assertThat(plan(2, ancient, 2)).isEqualTo(new PoolPlan(0, ids(ancient)));
  }
}
