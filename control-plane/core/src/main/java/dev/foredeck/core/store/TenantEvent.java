package dev.foredeck.core.store;

/// An event of one of a tenant's logs, and its place among those of all of them.
public record TenantEvent(TenantCursor cursor, Event event) {}
