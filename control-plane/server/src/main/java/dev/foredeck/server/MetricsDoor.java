package dev.foredeck.server;

import java.nio.charset.StandardCharsets;
import java.util.function.Supplier;

/// `/metrics`: for operators, and what scrapes for them with a key of that role.
final class MetricsDoor {
  private static final String TYPE = "text/plain; version=0.0.4; charset=utf-8";

  private final Supplier<String> metrics;

  /// @param metrics in Prometheus' text format 0.0.4
  MetricsDoor(Supplier<String> metrics) {
    this.metrics = metrics;
  }

  /// `GET /metrics`
  void scrape(Exchange exchange) throws Exception {
    exchange.send(200, TYPE, metrics.get().getBytes(StandardCharsets.UTF_8));
  }
}
