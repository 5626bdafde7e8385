package dev.foredeck.core.store;

import java.util.List;

/// What a read of a tenant's events gave.
public sealed interface TenantPage {
  /// In order; empty when there is nothing more now.
  record Events(List<TenantEvent> events) implements TenantPage {
    public Events {
      events = List.copyOf(events);
    }
  }

  /// There is no event where the cursor stands: retention has dropped it, or the database went back
  /// to a time before it. What follows it is not known.
  record CursorLost() implements TenantPage {}
}
