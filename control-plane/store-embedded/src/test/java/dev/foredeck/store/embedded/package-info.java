/// Tests of the embedded PostgreSQL, against the real one.
@NullMarked
package dev.foredeck.store.embedded;

import org.jspecify.annotations.NullMarked;
