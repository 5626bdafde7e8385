/// Sandboxes without processes: agents in this process that speak the real protocol and run
/// scripted programs. For load tests, demos, and simulations that replay from a seed.
@NullMarked
package dev.foredeck.driver.simulated;

import org.jspecify.annotations.NullMarked;
