package dev.foredeck.core.gate;

import java.time.Instant;

/// How a call ended.
///
/// @param status one of the ended ones
/// @param exitCode of a process that exited, else -1
/// @param signal the number of the signal that ended it, else 0
/// @param reason for a person; empty where status says it all
/// @param cpuMicros user and system time
/// @param peakMemoryBytes largest resident set
/// @param wallMillis from start to end
/// @param outputBytes of all channels, skipped ones included
public record CallResult(
    CallStatus status,
    int exitCode,
    int signal,
    String reason,
    long cpuMicros,
    long peakMemoryBytes,
    long wallMillis,
    long outputBytes,
    Instant endedAt) {
  public CallResult {
    if (!status.ended()) {
      throw new IllegalArgumentException("not an end: " + status);
    }
  }
}
