/// The Docker driver: sandboxes are containers of the daemon on this host. The only place that
/// knows docker-java.
@NullMarked
package dev.foredeck.driver.docker;

import org.jspecify.annotations.NullMarked;
