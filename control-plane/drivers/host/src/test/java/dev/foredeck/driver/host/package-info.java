@NullMarked
package dev.foredeck.driver.host;

import org.jspecify.annotations.NullMarked;
