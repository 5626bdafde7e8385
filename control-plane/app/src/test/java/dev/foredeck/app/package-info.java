/// The composition root: configuration, and the one place that knows every part.
@NullMarked
package dev.foredeck.app;

import org.jspecify.annotations.NullMarked;
