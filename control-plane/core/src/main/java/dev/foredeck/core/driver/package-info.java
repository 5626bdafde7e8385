/// The port to a backend that makes sandboxes: one contract, several drivers.
@NullMarked
package dev.foredeck.core.driver;

import org.jspecify.annotations.NullMarked;
