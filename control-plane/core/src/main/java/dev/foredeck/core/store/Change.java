package dev.foredeck.core.store;

import dev.foredeck.core.Id;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallResult;
import dev.foredeck.core.pool.WarmSandbox;
import dev.foredeck.core.sandbox.InlineFile;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.protocol.Channel;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// One change of durable state. Changes come in a [Commit]; where the condition of one does not
/// hold none of them happens.
public sealed interface Change {

  /// Refused: [Refusal#EXISTS]; [Refusal#QUOTA] when the tenant or the owner would have more live
  /// (not gone or failed) sandboxes than allowed.
  record CreateSandbox(
      Sandbox sandbox, List<InlineFile> files, int maxLiveOfTenant, int maxLiveOfOwner)
      implements Change {
    public CreateSandbox {
      files = List.copyOf(files);
    }
  }

  /// Moves the commit's sandbox. Refused with [Refusal#WRONG_PHASE] when it is not in one of `from`
  /// (or not there). A move to a terminal phase sets `endedAt` and frees its quota; `bootId` is
  /// kept where empty here.
  record MoveSandbox(Set<Phase> from, Phase to, String reason, Optional<String> bootId, Instant at)
      implements Change {
    public MoveSandbox {
      from = Set.copyOf(from);
    }
  }

  /// Refused with [Refusal#WRONG_PHASE] when the sandbox is terminal or stopping.
  record PatchSandbox(Optional<Instant> expiresAt, Optional<Map<String, String>> labels)
      implements Change {}

  /// The files that came with the request are written: they are needed no more.
  record ForgetFiles() implements Change {}

  /// Refused: [Refusal#EXISTS]; [Refusal#WRONG_PHASE] when the call is not ended and the sandbox is
  /// stopping or terminal; [Refusal#QUOTA] when the sandbox would have more live calls than
  /// allowed.
  record CreateCall(Call call, int maxLiveOfSandbox) implements Change {}

  /// PENDING to RUNNING; refused with [Refusal#ENDED] when the call is in any other state.
  record StartCall(Id call, long pid, Instant at) implements Change {}

  /// Appends output: a compare-and-set on the channel's committed offset. Refused with
  /// [Refusal#WRONG_OFFSET] when the offset is another, with [Refusal#ENDED] when the call has
  /// ended.
  record AppendOutput(Id call, Channel channel, long offset, byte[] bytes) implements Change {}

  /// Moves the committed offset without keeping bytes, and marks the call truncated. Refused as
  /// [AppendOutput].
  record SkipOutput(Id call, Channel channel, long offset, long length) implements Change {}

  /// A file copied out of the workspace. Replaces one of the same path.
  record SaveArtifact(Id call, String path, byte[] bytes, String sha256) implements Change {}

  /// Ends a live call; refused with [Refusal#ENDED] otherwise.
  record EndCall(Id call, CallResult result) implements Change {}

  /// Appends to the commit's log. Never refused.
  record AppendEvent(NewEvent event) implements Change {}

  /// Refused with [Refusal#KEY_TAKEN] when the key is there and not older than 24 h.
  record ClaimKey(IdempotencyKey key, String bodyHash, Optional<Id> call, Instant at)
      implements Change {}

  /// Records a warm sandbox that is to be launched. Refused: [Refusal#EXISTS].
  record AddWarm(WarmSandbox warm) implements Change {}

  /// Moves the commit's warm sandbox. Refused with [Refusal#TAKEN] when it is not in one of `from`
  /// (or not there); `bootId` is kept where empty here.
  record MoveWarm(
      Set<WarmSandbox.State> from, WarmSandbox.State to, Optional<String> bootId, Instant at)
      implements Change {
    public MoveWarm {
      from = Set.copyOf(from);
    }
  }

  /// Removes the commit's warm sandbox: of all who take it, one has it. Refused with
  /// [Refusal#TAKEN] when it is not in `from` (or not there).
  record TakeWarm(WarmSandbox.State from) implements Change {}

  /// Why a change did not happen.
  enum Refusal {
    EXISTS,
    QUOTA,
    WRONG_PHASE,
    WRONG_OFFSET,
    ENDED,
    KEY_TAKEN,
    TAKEN
  }
}
