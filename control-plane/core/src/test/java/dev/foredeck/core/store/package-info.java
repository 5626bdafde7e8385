/// The store's contract, and the store that tests run on.
@NullMarked
package dev.foredeck.core.store;

import org.jspecify.annotations.NullMarked;
