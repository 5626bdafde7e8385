/// The gate: the only code that can reach a sandbox's agent.
@NullMarked
package dev.foredeck.core.gate;

import org.jspecify.annotations.NullMarked;
