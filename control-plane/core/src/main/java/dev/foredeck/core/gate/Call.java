package dev.foredeck.core.gate;

import dev.foredeck.core.Id;
import java.time.Instant;
import java.util.List;
import java.util.Optional;

/// A call as its row says.
///
/// @param tool `process.start`, `file.read`, ...
/// @param arguments the whole arguments as JSON, for running the call; holds what a log must not
///   show
/// @param digest SHA-256 of tool and arguments, hexadecimal
/// @param principal the key that asked
/// @param outputs workspace paths to copy out when the call ends
/// @param destroysSandbox whether the sandbox goes when this call has ended
/// @param deadline when a process's time is over
/// @param stdoutBytes committed offset of the channel: bytes of it that are recorded or were
///   skipped
/// @param stderrBytes the same for stderr
/// @param truncated whether output was skipped beyond a limit
/// @param result present when ended
public record Call(
    Id id,
    Id sandbox,
    Id tenant,
    String tool,
    String arguments,
    String digest,
    Id principal,
    boolean background,
    List<String> outputs,
    boolean destroysSandbox,
    CallStatus status,
    Instant requestedAt,
    Instant deadline,
    Optional<Instant> startedAt,
    long pid,
    long stdoutBytes,
    long stderrBytes,
    boolean truncated,
    Optional<CallResult> result) {
  public Call {
    outputs = List.copyOf(outputs);
  }

  @Override
  public String toString() {
    return "Call[" + id + ", " + tool + ", " + status + "]";
  }
}
