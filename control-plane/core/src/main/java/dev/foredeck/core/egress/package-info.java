/// The port to the governed way to the web.
@NullMarked
package dev.foredeck.core.egress;

import org.jspecify.annotations.NullMarked;
