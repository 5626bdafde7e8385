@NullMarked
package dev.foredeck.core.gate;

import org.jspecify.annotations.NullMarked;
