/// What drivers share whose sandboxes run on this host: the sandbox's disk, its users, the socket
/// that its agent dials, and the kernel's tables of what there is.
@NullMarked
package dev.foredeck.driver.host;

import org.jspecify.annotations.NullMarked;
