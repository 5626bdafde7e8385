/// Warm pools: sandboxes that are launched before anybody asks for them.
@NullMarked
package dev.foredeck.core.pool;

import org.jspecify.annotations.NullMarked;
