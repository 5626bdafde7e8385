@NullMarked
package dev.foredeck.driver.local;

import org.jspecify.annotations.NullMarked;
