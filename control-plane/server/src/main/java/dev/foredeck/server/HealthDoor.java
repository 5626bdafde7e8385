package dev.foredeck.server;

import dev.foredeck.core.Json;
import dev.foredeck.core.Problem;
import dev.foredeck.core.ProblemException;
import java.io.IOException;
import java.io.InputStream;
import java.time.Duration;
import java.util.Optional;
import java.util.function.Supplier;

/// What needs no key: is it alive, does it serve, and what is the contract.
final class HealthDoor {
  private final Supplier<Optional<String>> unready;
  private final byte[] contract;

  /// @param unready why it does not serve; empty when it does
  HealthDoor(Supplier<Optional<String>> unready) {
    this.unready = unready;
    this.contract = resource("/openapi.json");
  }

  /// `GET /healthz`
  void alive(Exchange exchange) throws Exception {
    exchange.reply(200, Json.object().put("status", "ok"));
  }

  /// `GET /readyz`
  void ready(Exchange exchange) throws Exception {
    exchange.stillWanted();
    Optional<String> why = unready.get();
    if (why.isPresent()) {
      throw new ProblemException(
          new Problem.Unavailable("not-ready", why.get(), Duration.ofSeconds(1)));
    }
    exchange.reply(200, Json.object().put("status", "ready"));
  }

  /// `GET /openapi.json`
  void contract(Exchange exchange) throws Exception {
    exchange.send(200, "application/json", contract);
  }

  private static byte[] resource(String name) {
    try (InputStream in = HealthDoor.class.getResourceAsStream(name)) {
      if (in == null) {
        throw new IllegalStateException(name + " is not in this build");
      }
      return in.readAllBytes();
    } catch (IOException e) {
      throw new IllegalStateException(name + " cannot be read", e);
    }
  }
}
