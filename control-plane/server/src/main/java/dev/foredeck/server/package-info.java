/// The HTTP edge: decodes requests into what core's doors ask for, encodes what they answer. It
/// decides nothing.
@NullMarked
package dev.foredeck.server;

import org.jspecify.annotations.NullMarked;
