@NullMarked
package dev.foredeck.core;

import org.jspecify.annotations.NullMarked;
