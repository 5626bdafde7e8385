/// Process 1 of a sandbox: runs processes, keeps their output until it is acknowledged, serves the
/// workspace's files, and bridges to the egress gateway. Holds no policy, no secret and no state
/// that matters.
@NullMarked
package dev.foredeck.agent;

import org.jspecify.annotations.NullMarked;
