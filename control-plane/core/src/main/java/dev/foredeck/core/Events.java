package dev.foredeck.core;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.egress.EgressGateway.Delivery;
import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallResult;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.store.NewEvent;
import dev.foredeck.policy.Decision;
import dev.foredeck.protocol.Channel;
import java.time.Instant;
import java.util.Base64;
import java.util.Optional;
import java.util.Set;

/// The bodies of events, each written in one place: the design's table of event types.
public final class Events {
  /// All types that there are.
  public static final Set<String> TYPES =
      Set.of(
          "sandbox.phase",
          "call.requested",
          "call.decided",
          "call.started",
          "output",
          "output.truncated",
          "call.output",
          "call.ended",
          "file.changed",
          "egress.flow");

  /// The type of [#flow].
  public static final String FLOW = "egress.flow";

  /// The field by which a flow that is handed over twice is known.
  public static final String FLOW_ID = "id";

  private Events() {}

  public static NewEvent phase(Instant time, Phase phase, String reason) {
    ObjectNode data = Json.object().put("phase", phase.wireName());
    if (!reason.isEmpty()) {
      data.put("reason", reason);
    }
    return new NewEvent(time, "sandbox.phase", Optional.empty(), data);
  }

  /// @param shown arguments without secrets
  public static NewEvent requested(Call call, ObjectNode shown, Principal principal) {
    ObjectNode data = Json.object().put("tool", call.tool());
    data.set("arguments", shown);
    data.put("digest", call.digest());
    data.putObject("principal").put("key", principal.key().value()).put("name", principal.name());
    return new NewEvent(call.requestedAt(), "call.requested", Optional.of(call.id()), data);
  }

  public static NewEvent decided(Instant time, Id call, Decision decision, boolean shadow) {
    ObjectNode data = Json.object().put("effect", decision.effect().wireName());
    data.set("rules", Json.strings(decision.rules()));
    data.put("policy", decision.policy())
        .put("reason", decision.reason())
        .put("mode", shadow ? "shadow" : "enforce");
    return new NewEvent(time, "call.decided", Optional.of(call), data);
  }

  public static NewEvent started(Instant time, Id call, long pid) {
    return new NewEvent(time, "call.started", Optional.of(call), Json.object().put("pid", pid));
  }

  /// The log holds the range; the feed joins the bytes.
  public static NewEvent output(Instant time, Id call, Channel channel, long offset, int length) {
    return new NewEvent(
        time,
        "output",
        Optional.of(call),
        Json.object()
            .put("channel", channel.wireName())
            .put("offset", offset)
            .put("length", length));
  }

  public static NewEvent truncated(
      Instant time, Id call, Channel channel, long offset, long limitBytes) {
    return new NewEvent(
        time,
        "output.truncated",
        Optional.of(call),
        Json.object()
            .put("channel", channel.wireName())
            .put("offset", offset)
            .put("limitBytes", limitBytes));
  }

  /// @param bytes put inline where present
  public static NewEvent copiedOut(
      Instant time, Id call, String path, long size, String sha256, Optional<byte[]> bytes) {
    ObjectNode data = Json.object().put("path", path).put("size", size).put("sha256", sha256);
    bytes.ifPresent(b -> data.put("base64", Base64.getEncoder().encodeToString(b)));
    return new NewEvent(time, "call.output", Optional.of(call), data);
  }

  public static NewEvent missing(Instant time, Id call, String path, String why) {
    return new NewEvent(
        time,
        "call.output",
        Optional.of(call),
        Json.object().put("path", path).put("missing", why));
  }

  public static NewEvent ended(Id call, CallResult result) {
    ObjectNode data = Json.object().put("status", result.status().wireName());
    if (result.exitCode() >= 0) {
      data.put("exitCode", result.exitCode());
    }
    if (result.signal() > 0) {
      data.put("signal", result.signal());
    }
    if (!result.reason().isEmpty()) {
      data.put("reason", result.reason());
    }
    data.set("usage", usage(result));
    return new NewEvent(result.endedAt(), "call.ended", Optional.of(call), data);
  }

  public static ObjectNode usage(CallResult result) {
    return Json.object()
        .put("cpuSeconds", result.cpuMicros() / 1e6)
        .put("peakMemoryBytes", result.peakMemoryBytes())
        .put("wallMillis", result.wallMillis())
        .put("outputBytes", result.outputBytes());
  }

  /// @param change `written`, `removed`, `moved`
  public static NewEvent fileChanged(Instant time, Id call, String path, String change, long size) {
    ObjectNode data = Json.object().put("path", path).put("change", change);
    if (size >= 0) {
      data.put("size", size);
    }
    return new NewEvent(time, "file.changed", Optional.of(call), data);
  }

  /// @param call the claimed one, where it is a call of this sandbox
  public static NewEvent flow(Instant time, Optional<Id> call, Flow flow) {
    return flow(time, call, flow, Optional.empty());
  }

  /// @param delivery where the flow came from a gateway that may hand it over again
  public static NewEvent flow(
      Instant time, Optional<Id> call, Flow flow, Optional<Delivery> delivery) {
    ObjectNode data = Json.object().put("host", flow.host()).put("port", flow.port());
    delivery.ifPresent(d -> data.put(FLOW_ID, d.id()));
    if (!flow.address().isEmpty()) {
      data.put("address", flow.address());
    }
    data.put("method", flow.method());
    if (!flow.path().isEmpty()) {
      data.put("path", flow.path());
    }
    data.put("effect", flow.effect()).put("rule", flow.rule());
    if (!flow.reason().isEmpty()) {
      data.put("reason", flow.reason());
    }
    if (flow.shadow()) {
      data.put("mode", "shadow");
    }
    data.put("bytesIn", flow.bytesIn())
        .put("bytesOut", flow.bytesOut())
        .put("millis", flow.millis());
    return new NewEvent(time, FLOW, call, data);
  }
}
