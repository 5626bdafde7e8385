/// The durable store: PostgreSQL behind the core's port.
@NullMarked
package dev.foredeck.store;

import org.jspecify.annotations.NullMarked;
