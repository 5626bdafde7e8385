package dev.foredeck.server;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Json;
import dev.foredeck.core.Keys;
import dev.foredeck.core.Keys.Created;
import dev.foredeck.core.Operation;

/// `/v1/keys`: for operators.
final class KeyDoor {
  private final Keys keys;
  private final Decode decode;

  KeyDoor(Keys keys, Decode decode) {
    this.keys = keys;
    this.decode = decode;
  }

  /// `POST /v1/keys`: the only time that the secret is shown. Only its hash is kept, so a repeat
  /// could not be answered as the first was.
  void create(Exchange exchange) throws Exception {
    Decode.NewKey asked = decode.key(exchange.json());
    Operation operation = exchange.operation();
    if (operation.idempotency().isPresent()) {
      throw Exchange.invalid(
          "header:Idempotency-Key",
          "not-supported",
          "a key's secret is shown once and not kept, so that a repeat could not show it: revoke a"
              + " key whose answer got lost, and make another");
    }
    Created created = keys.create(operation, asked.name(), asked.role());
    exchange.reply(201, Encode.key(created.key()).put("key", created.secret()));
  }

  /// `GET /v1/keys`
  void list(Exchange exchange) throws Exception {
    ObjectNode json = Json.object();
    ArrayNode list = json.putArray("keys");
    keys.list(exchange.operation()).forEach(key -> list.add(Encode.key(key)));
    exchange.reply(200, json);
  }

  /// `DELETE /v1/keys/{id}`
  void revoke(Exchange exchange) {
    keys.revoke(exchange.operation(), exchange.id());
    exchange.noContent();
  }
}
