package dev.foredeck.server;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Json;
import dev.foredeck.core.pool.Pools;

/// `/v1/pools`: for operators.
final class PoolDoor {
  private final Pools pools;

  PoolDoor(Pools pools) {
    this.pools = pools;
  }

  /// `GET /v1/pools`
  void list(Exchange exchange) throws Exception {
    ObjectNode json = Json.object();
    ArrayNode list = json.putArray("pools");
    pools.list(exchange.operation()).forEach(pool -> list.add(Encode.pool(pool)));
    exchange.reply(200, json);
  }
}
