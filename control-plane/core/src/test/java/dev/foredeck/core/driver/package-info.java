/// What every driver must do, as tests.
@NullMarked
package dev.foredeck.core.driver;

import org.jspecify.annotations.NullMarked;
