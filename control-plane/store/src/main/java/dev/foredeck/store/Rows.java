package dev.foredeck.store;

import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallResult;
import dev.foredeck.core.gate.CallStatus;
import dev.foredeck.core.pool.WarmSandbox;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Store.ApiKey;
import dev.foredeck.store.generated.tables.records.ApiKeyRecord;
import dev.foredeck.store.generated.tables.records.CallRecord;
import dev.foredeck.store.generated.tables.records.SandboxRecord;
import dev.foredeck.store.generated.tables.records.WarmSandboxRecord;
import java.time.OffsetDateTime;
import java.util.Optional;
import org.jooq.JSON;

/// Rows as the domain's records.
final class Rows {
  private Rows() {}

  static Sandbox sandbox(SandboxRecord row) {
    return new Sandbox(
        new Id(row.getId()),
        new Id(row.getTenant()),
        row.getOwner(),
        row.getTemplate(),
        new Resources(row.getCpuMillis(), row.getMemoryBytes(), row.getDiskBytes(), row.getPids()),
        row.getPolicy(),
        Json.map(row.getEnv().data()),
        Json.map(row.getLabels().data()),
        Optional.ofNullable(row.getNetworkAllow()).map(JSON::data).map(Json::list),
        row.getDestroyOnExit(),
        Wire.phase(row.getPhase()),
        row.getReason(),
        row.getBootId(),
        row.getCreatedAt().toInstant(),
        row.getExpiresAt().toInstant(),
        Optional.ofNullable(row.getEndedAt()).map(OffsetDateTime::toInstant));
  }

  static WarmSandbox warmSandbox(WarmSandboxRecord row) {
    return new WarmSandbox(
        new Id(row.getId()),
        row.getOwner(),
        row.getTemplate(),
        new Resources(row.getCpuMillis(), row.getMemoryBytes(), row.getDiskBytes(), row.getPids()),
        row.getPolicy(),
        Wire.warmState(row.getState()),
        row.getBootId(),
        row.getCreatedAt().toInstant(),
        row.getSince().toInstant(),
        row.getExpiresAt().toInstant());
  }

  static Call call(CallRecord row) {
    CallStatus status = Wire.status(row.getStatus());
    Optional<CallResult> result =
        row.getEndedAt() == null
            ? Optional.empty()
            : Optional.of(
                new CallResult(
                    status,
                    row.getExitCode(),
                    row.getSignal(),
                    row.getEndReason(),
                    row.getCpuMicros(),
                    row.getPeakMemoryBytes(),
                    row.getWallMillis(),
                    row.getOutputBytes(),
                    row.getEndedAt().toInstant()));
    return new Call(
        new Id(row.getId()),
        new Id(row.getSandbox()),
        new Id(row.getTenant()),
        row.getTool(),
        row.getArguments(),
        row.getDigest(),
        new Id(row.getPrincipal()),
        row.getBackground(),
        Json.list(row.getOutputs().data()),
        row.getDestroysSandbox(),
        status,
        row.getRequestedAt().toInstant(),
        row.getDeadline().toInstant(),
        Optional.ofNullable(row.getStartedAt()).map(OffsetDateTime::toInstant),
        row.getPid(),
        row.getStdoutBytes(),
        row.getStderrBytes(),
        row.getTruncated(),
        result);
  }

  static ApiKey apiKey(ApiKeyRecord row) {
    return new ApiKey(
        new Id(row.getId()),
        new Id(row.getTenant()),
        row.getName(),
        Wire.role(row.getRole()),
        row.getSha256(),
        row.getCreatedAt().toInstant(),
        Optional.ofNullable(row.getRevokedAt()).map(OffsetDateTime::toInstant));
  }
}
