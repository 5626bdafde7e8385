@NullMarked
package dev.foredeck.driver.kubernetes;

import org.jspecify.annotations.NullMarked;
