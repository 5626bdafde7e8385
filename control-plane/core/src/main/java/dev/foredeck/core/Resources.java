package dev.foredeck.core;

/// What a sandbox may use.
///
/// @param cpuMillis thousandths of a core
/// @param memoryBytes of the whole sandbox, agent included
/// @param diskBytes of the workspace
/// @param pids processes and threads, agent included
public record Resources(int cpuMillis, long memoryBytes, long diskBytes, int pids) {}
