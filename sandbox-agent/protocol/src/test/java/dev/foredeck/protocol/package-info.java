@NullMarked
package dev.foredeck.protocol;

import org.jspecify.annotations.NullMarked;
