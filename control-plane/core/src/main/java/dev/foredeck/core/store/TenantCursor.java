package dev.foredeck.core.store;

import dev.foredeck.core.Id;
import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.Base64;
import java.util.Optional;
import java.util.zip.CRC32;

/// An event's place in the order of all of its tenant's events: by the transaction that wrote it,
/// then by log, then by `seq`. A transaction gets its number before it commits, so a store shows
/// only events of those below which none is in progress.
///
/// @param tx of the writing transaction; says nothing about other stores
/// @param time of the event, in whole microseconds: tells it from another that took its place after
///   a restore
public record TenantCursor(long tx, Id sandbox, long seq, Instant time) {
  private static final byte VERSION = 1;
  private static final int MAX_CHARS = 128;

  public TenantCursor {
    time = time.truncatedTo(ChronoUnit.MICROS);
  }

  /// Opaque, safe in a URL and in a header; what [#parse] reads.
  public String text() {
    byte[] log = sandbox.value().getBytes(StandardCharsets.US_ASCII);
    ByteBuffer bytes = ByteBuffer.allocate(1 + 3 * Long.BYTES + log.length + Integer.BYTES);
    bytes.put(VERSION).putLong(tx).putLong(seq).putLong(micros(time)).put(log);
    bytes.putInt(sum(bytes.array(), bytes.position()));
    return Base64.getUrlEncoder().withoutPadding().encodeToString(bytes.array());
  }

  /// Empty when it is nothing that [#text] wrote.
  public static Optional<TenantCursor> parse(String text) {
    if (text.length() > MAX_CHARS) {
      return Optional.empty();
    }
    try {
      byte[] all = Base64.getUrlDecoder().decode(text);
      ByteBuffer bytes = ByteBuffer.wrap(all);
      byte version = bytes.get();
      long tx = bytes.getLong();
      long seq = bytes.getLong();
      long micros = bytes.getLong();
      byte[] log = new byte[Math.max(0, bytes.remaining() - Integer.BYTES)];
      bytes.get(log);
      boolean ours = version == VERSION && bytes.getInt() == sum(all, all.length - Integer.BYTES);
      String sandbox = new String(log, StandardCharsets.US_ASCII);
      if (!ours || !Id.isValid(sandbox)) {
        return Optional.empty();
      }
      Instant time = Instant.EPOCH.plus(micros, ChronoUnit.MICROS);
      return Optional.of(new TenantCursor(tx, new Id(sandbox), seq, time));
    } catch (IllegalArgumentException | BufferUnderflowException _) {
      return Optional.empty();
    }
  }

  private static long micros(Instant time) {
    return ChronoUnit.MICROS.between(Instant.EPOCH, time);
  }

  /// A slip of the pen and a cursor of something else are told apart from a place that is gone. It
  /// guards nothing: a place that is not the tenant's own is not there.
  private static int sum(byte[] bytes, int length) {
    CRC32 crc = new CRC32();
    crc.update(bytes, 0, length);
    return (int) crc.getValue();
  }
}
