/// The durable PostgreSQL that comes along: started, watched and adopted by our own code.
@NullMarked
package dev.foredeck.store.embedded;

import org.jspecify.annotations.NullMarked;
