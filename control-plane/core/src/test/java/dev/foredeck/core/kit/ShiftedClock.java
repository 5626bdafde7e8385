package dev.foredeck.core.kit;

import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneId;
import java.util.concurrent.atomic.AtomicReference;

/// The system's clock, which a test may put forward.
public final class ShiftedClock extends Clock {
  private final Clock inner = Clock.systemUTC();
  private final AtomicReference<Duration> shift = new AtomicReference<>(Duration.ZERO);

  public void advance(Duration by) {
    shift.accumulateAndGet(by, Duration::plus);
  }

  @Override
  public ZoneId getZone() {
    return inner.getZone();
  }

  @Override
  public Clock withZone(ZoneId zone) {
    throw new UnsupportedOperationException("one zone is enough");
  }

  @Override
  public Instant instant() {
    return inner.instant().plus(shift.get());
  }
}
