@NullMarked
package dev.foredeck.core.sandbox;

import org.jspecify.annotations.NullMarked;
