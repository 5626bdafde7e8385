package dev.foredeck.egress;

import java.util.concurrent.ScheduledExecutorService;
import java.util.function.LongSupplier;

/// What all of a gateway's sandboxes share.
record Surroundings(
    EgressLimits limits,
    Destinations destinations,
    BufferPool buffers,
    ScheduledExecutorService timer,
    LongSupplier nanoTime) {}
