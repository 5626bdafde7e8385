package dev.foredeck.server;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Events;
import dev.foredeck.core.Id;
import dev.foredeck.core.Json;
import dev.foredeck.core.Resources;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallResult;
import dev.foredeck.core.gate.Calls.Listing;
import dev.foredeck.core.gate.Calls.Output;
import dev.foredeck.core.pool.Pools;
import dev.foredeck.core.sandbox.Sandbox;
import dev.foredeck.core.store.Event;
import dev.foredeck.core.store.Store.ApiKey;
import dev.foredeck.protocol.Message.FileInfo;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.Arrays;
import java.util.Base64;
import java.util.Optional;
import java.util.TreeMap;

/// Core's records as the JSON of `/v1`. Names and shapes are the contract of the design's section 4
/// and of `openapi.json`.
final class Encode {
  private Encode() {}

  /// Environment values are never shown: only their names.
  static ObjectNode sandbox(Sandbox sandbox) {
    ObjectNode json =
        Json.object()
            .put("id", sandbox.id().value())
            .put("phase", sandbox.phase().wireName())
            .put("reason", sandbox.reason())
            .put("template", sandbox.template());
    json.set("resources", resources(sandbox.resources()));
    json.put("policy", sandbox.policy());
    ObjectNode labels = json.putObject("labels");
    new TreeMap<>(sandbox.labels()).forEach(labels::put);
    json.set("env", Json.strings(sandbox.env().keySet().stream().sorted().toList()));
    sandbox
        .networkAllow()
        .ifPresent(hosts -> json.putObject("network").set("allow", Json.strings(hosts)));
    json.put("destroy", sandbox.destroyOnExit() ? "on-exit" : "on-ttl")
        .put("createdAt", time(sandbox.createdAt()))
        .put("expiresAt", time(sandbox.expiresAt()));
    sandbox.endedAt().ifPresent(at -> json.put("endedAt", time(at)));
    return json;
  }

  /// The end of a channel.
  ///
  /// @param cutHead whether bytes before it are not in it
  /// @param cutTail whether more may come: its last character may be half there
  record Tail(byte[] bytes, boolean cutHead, boolean cutTail) {}

  static ObjectNode call(Call call, Tail stdout, Tail stderr) {
    ObjectNode json =
        Json.object()
            .put("id", call.id().value())
            .put("sandbox", call.sandbox().value())
            .put("tool", call.tool())
            .put("status", call.status().wireName())
            .put("background", call.background());
    Optional<CallResult> result = call.result();
    if (result.isPresent()) {
      if (result.get().exitCode() >= 0) {
        json.put("exitCode", result.get().exitCode());
      } else {
        json.putNull("exitCode");
      }
      if (result.get().signal() > 0) {
        json.put("signal", result.get().signal());
      }
      if (!result.get().reason().isEmpty()) {
        json.put("reason", result.get().reason());
      }
    }
    tail(json, "stdout", stdout);
    tail(json, "stderr", stderr);
    json.put("truncated", call.truncated() || stdout.cutHead() || stderr.cutHead());
    json.putObject("bytes").put("stdout", call.stdoutBytes()).put("stderr", call.stderrBytes());
    result.ifPresent(r -> json.set("usage", Events.usage(r)));
    json.put("requestedAt", time(call.requestedAt()));
    call.startedAt().ifPresent(at -> json.put("startedAt", time(at)));
    result.ifPresent(r -> json.put("endedAt", time(r.endedAt())));
    return json;
  }

  /// @param bytes of the file, where it is small enough to be inline
  static ObjectNode output(Id call, Output output, Optional<byte[]> bytes) {
    ObjectNode json = Json.object().put("path", output.path());
    if (output.missing().isPresent()) {
      return json.put("missing", output.missing().get());
    }
    json.put("size", output.sizeBytes()).put("sha256", output.sha256());
    if (bytes.isPresent()) {
      return json.put("base64", Base64.getEncoder().encodeToString(bytes.get()));
    }
    return json.put("href", "/v1/calls/" + call + "/outputs/" + encodedPath(output.path()));
  }

  static ObjectNode event(Event event) {
    ObjectNode json =
        Json.object()
            .put("seq", event.seq())
            .put("time", time(event.time()))
            .put("type", event.type())
            .put("sandbox", event.sandbox().value());
    event.call().ifPresent(call -> json.put("call", call.value()));
    json.set("data", event.data());
    return json;
  }

  static ObjectNode file(FileInfo info) {
    String kind =
        switch (info.kind()) {
          case FILE -> "file";
          case DIRECTORY -> "directory";
          case LINK -> "link";
          case OTHER -> "other";
        };
    return Json.object()
        .put("path", info.path())
        .put("kind", kind)
        .put("size", info.sizeBytes())
        .put("mode", String.format("%04o", info.mode() & 07777))
        .put("modifiedAt", time(Instant.ofEpochMilli(info.modifiedMillis())));
  }

  static ObjectNode listing(Listing listing) {
    ObjectNode json = Json.object();
    ArrayNode entries = json.putArray("entries");
    listing.entries().forEach(entry -> entries.add(file(entry)));
    return json.put("truncated", listing.truncated());
  }

  private static ObjectNode resources(Resources resources) {
    return Json.object()
        .put("cpu", Quantity.writeCpu(resources.cpuMillis()))
        .put("memory", Quantity.writeSize(resources.memoryBytes()))
        .put("disk", Quantity.writeSize(resources.diskBytes()))
        .put("pids", resources.pids());
  }

  static ObjectNode pool(Pools.State pool) {
    ObjectNode json =
        Json.object().put("key", pool.key().name()).put("template", pool.key().template());
    json.set("resources", resources(pool.key().resources()));
    json.put("policy", pool.policy())
        .put("target", pool.target())
        .put("floor", pool.size().floor())
        .put("ceiling", pool.size().ceiling())
        .put("warm", pool.warm())
        .put("warming", pool.warming())
        .put("claimsPerMinute", Math.round(pool.claimsPerMinute() * 10) / 10.0);
    json.putObject("claims")
        .put("warm", pool.tally().claimedWarm())
        .put("cold", pool.tally().claimedCold());
    json.putObject("launches")
        .put("warm", pool.tally().launched())
        .put("failed", pool.tally().failed());
    pool.lastFailure()
        .ifPresent(failure ->
            json.putObject("lastFailure")
                .put("reason", failure.reason())
                .put("at", time(failure.at())));
    return json;
  }

  static ObjectNode key(ApiKey key) {
    ObjectNode json =
        Json.object()
            .put("id", key.id().value())
            .put("name", key.name())
            .put("role", key.role().wireName())
            .put("createdAt", time(key.createdAt()));
    key.revokedAt().ifPresent(at -> json.put("revokedAt", time(at)));
    return json;
  }

  /// `name` where the bytes are valid UTF-8, else `base64Name`.
  static void textOrBase64(ObjectNode json, String name, String base64Name, byte[] bytes) {
    try {
      String text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
      json.put(name, text);
    } catch (CharacterCodingException _) {
      json.put(base64Name, Base64.getEncoder().encodeToString(bytes));
    }
  }

  /// ISO 8601, UTC, always with milliseconds.
  static String time(Instant instant) {
    long millis = instant.toEpochMilli();
    String text = Instant.ofEpochMilli(millis).toString();
    return millis % 1000 == 0 ? text.replace("Z", ".000Z") : text;
  }

  private static void tail(ObjectNode json, String name, Tail tail) {
    byte[] bytes = tail.bytes();
    int from = tail.cutHead() ? partialHead(bytes) : 0;
    int to = tail.cutTail() ? bytes.length - partialTail(bytes) : bytes.length;
    byte[] whole =
        from == 0 && to == bytes.length
            ? bytes
            : Arrays.copyOfRange(bytes, from, Math.max(from, to));
    ObjectNode text = Json.object();
    textOrBase64(text, name, name + "Base64", whole);
    if (text.has(name)) {
      json.setAll(text);
    } else {
      json.put(name + "Base64", Base64.getEncoder().encodeToString(bytes));
    }
  }

  /// Bytes at the head that belong to a character whose start was cut off.
  private static int partialHead(byte[] bytes) {
    int n = 0;
    while (n < bytes.length && n < 3 && (bytes[n] & 0xc0) == 0x80) {
      n++;
    }
    return n;
  }

  /// Bytes at the tail that begin a character whose end is not there yet.
  private static int partialTail(byte[] bytes) {
    for (int n = 1; n <= 3 && n <= bytes.length; n++) {
      int b = bytes[bytes.length - n] & 0xff;
      if (b >= 0xc0) {
        int length = b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : 2;
        return length > n ? n : 0;
      }
      if (b < 0x80) {
        return 0;
      }
    }
    return 0;
  }

  /// Each segment percent-encoded, the slashes kept.
  static String encodedPath(String path) {
    StringBuilder encoded = new StringBuilder();
    for (byte b : path.getBytes(StandardCharsets.UTF_8)) {
      char c = (char) (b & 0xff);
      if ((c >= 'a' && c <= 'z')
          || (c >= 'A' && c <= 'Z')
          || (c >= '0' && c <= '9')
          || "-._~/".indexOf(c) >= 0) {
        encoded.append(c);
      } else {
        encoded.append(String.format("%%%02X", (int) c));
      }
    }
    return encoded.toString();
  }
}
