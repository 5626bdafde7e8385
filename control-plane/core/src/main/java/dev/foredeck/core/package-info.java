/// The domain of the control plane: words, limits, problems. No framework on its classpath.
@NullMarked
package dev.foredeck.core;

import org.jspecify.annotations.NullMarked;
