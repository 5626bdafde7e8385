@NullMarked
package dev.foredeck.core.feed;

import org.jspecify.annotations.NullMarked;
