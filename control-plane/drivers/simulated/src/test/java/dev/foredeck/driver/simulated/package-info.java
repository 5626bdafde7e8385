@NullMarked
package dev.foredeck.driver.simulated;

import org.jspecify.annotations.NullMarked;
