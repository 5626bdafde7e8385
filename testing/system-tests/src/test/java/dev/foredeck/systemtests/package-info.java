/// Black-box tests over HTTP against the real thing: a control plane in a process of its own, its
/// database, its sandboxes.
@NullMarked
package dev.foredeck.systemtests;

import org.jspecify.annotations.NullMarked;
