package dev.foredeck.app;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Resources;
import dev.foredeck.core.pool.PoolKey;
import dev.foredeck.core.pool.PoolSize;
import dev.foredeck.core.pool.Pools;
import dev.foredeck.policy.Boundary;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

class MetricsTest {
  private static final PoolKey KEY =
      new PoolKey("host", new Resources(500, 1L << 28, 1L << 26, 64), Boundary.NONE);
  private static final PoolKey OTHER =
      new PoolKey("host", new Resources(500, 1L << 29, 1L << 26, 64), Boundary.NONE);

  private static Pools.State state(PoolKey key, int warm, Pools.Tally tally) {
    return new Pools.State(
        key, "default@1", new PoolSize(1, 4), 2, warm, 1, 3.5, tally, Optional.empty());
  }

  @Test
  void showsEachPoolAsItIsWhenItIsAsked() {
    AtomicInteger warm = new AtomicInteger(1);
    try (Metrics metrics = new Metrics()) {
      metrics.pools(() ->
          List.of(
              state(KEY, warm.get(), new Pools.Tally(12, 3, 14, 2)),
              state(OTHER, 0, Pools.Tally.NOTHING)));
      String labels = "{policy=\"default@1\",pool=\"" + KEY.name() + "\"}";
      assertThat(metrics.get().lines())
          .contains(
              "# TYPE foredeck_pool_warm gauge",
              "# TYPE foredeck_pool_claims_total counter",
              "foredeck_pool_warm" + labels + " 1.0",
              "foredeck_pool_target" + labels + " 2.0",
              "foredeck_pool_claims_per_minute" + labels + " 3.5",
              "foredeck_pool_claims_total{got=\"warm\",policy=\"default@1\",pool=\""
                  + KEY.name()
                  + "\"} 12.0",
              "foredeck_pool_launches_total{policy=\"default@1\",pool=\""
                  + KEY.name()
                  + "\",result=\"failed\"} 2.0",
              "foredeck_pool_warm{policy=\"default@1\",pool=\"" + OTHER.name() + "\"} 0.0");
      warm.set(4);
      assertThat(metrics.get().lines()).contains("foredeck_pool_warm" + labels + " 4.0");
    }
  }

  @Test
  void showsItsProcessAndItsRequests() {
    AtomicInteger working = new AtomicInteger(7);
    try (Metrics metrics = new Metrics()) {
      metrics.requests(working::get);
      assertThat(metrics.get())
          .contains("foredeck_http_requests_working 7.0")
          .contains("jvm_memory_used_bytes{")
          .contains("process_uptime_seconds");
    }
  }
}
