package dev.foredeck.app;

import dev.foredeck.core.pool.PoolSize;
import dev.foredeck.core.pool.Pools;
import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.Tags;
import io.micrometer.core.instrument.binder.jvm.ClassLoaderMetrics;
import io.micrometer.core.instrument.binder.jvm.JvmGcMetrics;
import io.micrometer.core.instrument.binder.jvm.JvmMemoryMetrics;
import io.micrometer.core.instrument.binder.jvm.JvmThreadMetrics;
import io.micrometer.core.instrument.binder.system.FileDescriptorMetrics;
import io.micrometer.core.instrument.binder.system.ProcessorMetrics;
import io.micrometer.core.instrument.binder.system.UptimeMetrics;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.util.List;
import java.util.function.Supplier;
import java.util.function.ToDoubleFunction;

/// What this process counts, in Prometheus' text format. Everything is read when it is asked for:
/// nothing here is told of what happens.
final class Metrics implements Supplier<String>, AutoCloseable {
  private final PrometheusMeterRegistry registry =
      new PrometheusMeterRegistry(PrometheusConfig.DEFAULT);
  private final JvmGcMetrics collector = new JvmGcMetrics();

  Metrics() {
    new ClassLoaderMetrics().bindTo(registry);
    new JvmMemoryMetrics().bindTo(registry);
    new JvmThreadMetrics().bindTo(registry);
    new ProcessorMetrics().bindTo(registry);
    new FileDescriptorMetrics().bindTo(registry);
    new UptimeMetrics().bindTo(registry);
    collector.bindTo(registry);
  }

  /// @param working requests that have a thread now, feeds included
  void requests(Supplier<Number> working) {
    Gauge.builder("foredeck.http.requests.working", working)
        .description("Requests that are being worked on, feeds included")
        .register(registry);
  }

  /// The pools that `states` names now; their number and order must stay.
  void pools(Supplier<List<Pools.State>> states) {
    List<Pools.State> every = states.get();
    for (int i = 0; i < every.size(); i++) {
      int one = i;
      pool(() -> states.get().get(one));
    }
  }

  private void pool(Supplier<Pools.State> state) {
    Pools.State now = state.get();
    Tags tags = Tags.of("pool", now.key().name(), "policy", now.policy());
    PoolSize size = now.size();
    gauge("floor", "Warm sandboxes kept without any demand", tags, state, _ -> size.floor());
    gauge("ceiling", "Warm sandboxes at most", tags, state, _ -> size.ceiling());
    gauge("target", "Warm sandboxes wanted, by demand", tags, state, Pools.State::target);
    gauge("warm", "Sandboxes that may be claimed", tags, state, Pools.State::warm);
    gauge("warming", "Sandboxes that are being launched", tags, state, Pools.State::warming);
    gauge(
        "claims.per.minute",
        "Demand, where what is a minute ago counts half",
        tags,
        state,
        Pools.State::claimsPerMinute);
    String claims = "Requests for a sandbox of this pool";
    counter("claims", claims, tags.and("got", "warm"), state, s -> s.tally().claimedWarm());
    counter("claims", claims, tags.and("got", "cold"), state, s -> s.tally().claimedCold());
    String launches = "Launches for this pool that have ended";
    counter("launches", launches, tags.and("result", "warm"), state, s -> s.tally().launched());
    counter("launches", launches, tags.and("result", "failed"), state, s -> s.tally().failed());
  }

  private void gauge(
      String name,
      String description,
      Tags tags,
      Supplier<Pools.State> state,
      ToDoubleFunction<Pools.State> value) {
    Gauge.builder("foredeck.pool." + name, () -> value.applyAsDouble(state.get()))
        .description(description)
        .tags(tags)
        .register(registry);
  }

  private void counter(
      String name,
      String description,
      Tags tags,
      Supplier<Pools.State> state,
      ToDoubleFunction<Pools.State> value) {
    // The registry holds weakly what it counts: this, which lives as long as the registry.
    FunctionCounter.builder("foredeck.pool." + name, this, _ -> value.applyAsDouble(state.get()))
        .description(description)
        .tags(tags)
        .register(registry);
  }

  @Override
  public String get() {
    return registry.scrape();
  }

  @Override
  public void close() {
    collector.close();
    registry.close();
  }
}
