/// Sandboxes: provisioning, launcher, reaper.
@NullMarked
package dev.foredeck.core.sandbox;

import org.jspecify.annotations.NullMarked;
