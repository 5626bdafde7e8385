package dev.foredeck.core;

/// Who asks.
///
/// @param key the API key's id
/// @param name of the key, for logs and events
public record Principal(Id tenant, Id key, String name, Role role) {}
