package dev.foredeck.core.store;

import dev.foredeck.core.Id;

/// @param route method and route template, as `POST /v1/sandboxes`, with the path's own ids filled
///   in
public record IdempotencyKey(Id tenant, String route, String key) {}
