@NullMarked
package dev.foredeck.core.pool;

import org.jspecify.annotations.NullMarked;
