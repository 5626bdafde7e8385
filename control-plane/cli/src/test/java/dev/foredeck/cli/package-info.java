/// The command line: a client of `/v1`, and the policy tools that need no server.
@NullMarked
package dev.foredeck.cli;

import org.jspecify.annotations.NullMarked;
