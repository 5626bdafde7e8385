/// The port to durable state: decisions become one commit.
@NullMarked
package dev.foredeck.core.store;

import org.jspecify.annotations.NullMarked;
