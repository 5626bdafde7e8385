/// Tests of the HTTP edge, over real sockets, with hand-written fakes of what is behind it.
@NullMarked
package dev.foredeck.server;

import org.jspecify.annotations.NullMarked;
