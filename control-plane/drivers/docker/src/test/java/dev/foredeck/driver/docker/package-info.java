@NullMarked
package dev.foredeck.driver.docker;

import org.jspecify.annotations.NullMarked;
