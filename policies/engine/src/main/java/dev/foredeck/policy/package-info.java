/// The policy engine: compile, decide, explain. Pure: no I/O, no clock, no framework.
@NullMarked
package dev.foredeck.policy;

import org.jspecify.annotations.NullMarked;
