/// What core's tests run against: a backend with faithful agents in memory, and a whole control
/// plane over it.
@NullMarked
package dev.foredeck.core.kit;

import org.jspecify.annotations.NullMarked;
