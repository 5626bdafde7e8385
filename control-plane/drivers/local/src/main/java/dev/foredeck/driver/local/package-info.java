/// Sandboxes on this host, made by an OCI runtime: the only place that knows runc, cgroups, mounts
/// and loop devices.
@NullMarked
package dev.foredeck.driver.local;

import org.jspecify.annotations.NullMarked;
