package dev.foredeck.core.gate;

import dev.foredeck.core.Id;
import dev.foredeck.core.Operation;
import dev.foredeck.protocol.Channel;
import dev.foredeck.protocol.Message.FileInfo;
import java.io.InputStream;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/// What doors may ask about calls: the gate's front. Every method throws
/// [dev.foredeck.core.ProblemException] for its problems: a call of another tenant is not found.
public interface Calls {

  /// Decides and records, then the call runs by itself (once the sandbox is ready); returns at
  /// once. A repeat under the same idempotency key returns the first call.
  ///
  /// Problems: `Denied`, `Conflict(sandbox-gone)`, `Capacity(call-quota)`,
  /// `Conflict(idempotency-mismatch)`.
  Call start(
      Operation operation, Id sandbox, ToolCall.Run run, boolean background, List<String> outputs);

  Call get(Operation operation, Id call);

  /// Waits until the call has ended or the time is over; returns it as it is then.
  ///
  /// @param call as it was last seen
  Call awaitEnd(Operation operation, Call call, Duration timeout);

  /// Recorded output from `offset`.
  OutputPage output(Operation operation, Id call, Channel channel, long offset, int maxBytes);

  /// @param offset of the first byte
  /// @param recorded bytes of the channel that can be read
  /// @param total bytes that the process wrote, as far as known
  /// @param ended whether no more will come
  record OutputPage(byte[] bytes, long offset, long recorded, long total, boolean ended) {}

  /// What was to be copied out, in the request's order, present ones and missing ones.
  List<Output> outputs(Operation operation, Id call);

  /// @param missing why it is not there; empty when it is
  record Output(String path, long sizeBytes, String sha256, Optional<String> missing) {}

  /// Bytes of a copied-out file.
  byte[] outputFile(Operation operation, Id call, String path);

  /// Appends to stdin at `offset` (or at its end when empty); waits until the agent has it.
  ///
  /// @return bytes of stdin accepted in all
  long stdin(Operation operation, Id call, Optional<Long> offset, byte[] bytes, boolean end);

  /// @param signal name without `SIG`, as `INT`
  void signal(Operation operation, Id call, String signal);

  /// TERM, then KILL after the grace; the call ends `cancelled`. A pending call ends at once.
  /// Idempotent.
  Call cancel(Operation operation, Id call);

  /// Opens a file for reading. The caller reads `content` to its end or closes it.
  Download readFile(Operation operation, Id sandbox, String path);

  record Download(Id call, FileInfo info, InputStream content) {}

  /// Writes a file, as a whole or not at all: an `IOException` of `content` leaves nothing.
  ///
  /// @param size as declared, or -1
  FileInfo writeFile(Operation operation, Id sandbox, String path, long size, InputStream content);

  Listing listFiles(Operation operation, Id sandbox, String path, int depth);

  record Listing(List<FileInfo> entries, boolean truncated) {}

  FileInfo statFile(Operation operation, Id sandbox, String path);

  void removeFile(Operation operation, Id sandbox, String path, boolean recursive);

  void moveFile(Operation operation, Id sandbox, String path, String target);
}
