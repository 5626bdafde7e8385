package dev.foredeck.store;

import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Id;
import dev.foredeck.core.store.Event;
import dev.foredeck.protocol.Channel;
import dev.foredeck.store.generated.tables.records.EventRecord;
import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.NavigableMap;
import java.util.Optional;

/// Joins output into a page of events: the log holds ranges, the bytes live in a table of their
/// own.
final class EventPage {
  private static final String OUTPUT = "output";

  private final List<Row> rows = new ArrayList<>();

  private record Row(EventRecord event, ObjectNode data, Optional<Range> output) {}

  private record Stream(Id call, Channel channel) {}

  private record Range(Stream stream, long offset, int length) {
    long end() {
      return offset + length;
    }
  }

  /// Where bytes come from.
  interface Chunks {
    /// @return chunks that have a byte in `[from, to)`, by offset
    NavigableMap<Long, byte[]> of(Id call, Channel channel, long from, long to);
  }

  /// @param maxBytes of output; the first event is taken whatever its size
  EventPage(List<EventRecord> events, int maxBytes) {
    long bytes = 0;
    for (EventRecord event : events) {
      ObjectNode data = Json.object(event.getData());
      Optional<Range> output = output(event, data);
      bytes += output.map(Range::length).orElse(0);
      if (!rows.isEmpty() && bytes > maxBytes) {
        break;
      }
      rows.add(new Row(event, data, output));
    }
  }

  private static Optional<Range> output(EventRecord event, ObjectNode data) {
    if (!event.getType().equals(OUTPUT) || event.getCall() == null) {
      return Optional.empty();
    }
    return Optional.of(
        new Range(
            new Stream(new Id(event.getCall()), Wire.channel(data.path("channel").asText())),
            data.path("offset").asLong(),
            Math.toIntExact(data.path("length").asLong())));
  }

  List<Event> joined(Chunks chunks) {
    // One query a channel, not one an event.
    Map<Stream, Long> from = new HashMap<>();
    Map<Stream, Long> to = new HashMap<>();
    for (Row row : rows) {
      row.output()
          .ifPresent(range -> {
            from.merge(range.stream(), range.offset(), Math::min);
            to.merge(range.stream(), range.end(), Math::max);
          });
    }
    Map<Stream, NavigableMap<Long, byte[]>> bytes = new HashMap<>();
    from.forEach((stream, start) ->
        bytes.put(
            stream,
            chunks.of(stream.call(), stream.channel(), start, to.getOrDefault(stream, start))));
    List<Event> events = new ArrayList<>();
    for (Row row : rows) {
      EventRecord event = row.event();
      ObjectNode data = row.data();
      if (row.output().isPresent()) {
        Range range = row.output().get();
        NavigableMap<Long, byte[]> found = bytes.get(range.stream());
        data =
            body(range, found == null ? new byte[0] : slice(found, range.offset(), range.length()));
      }
      events.add(
          new Event(
              event.getSeq(),
              event.getTime().toInstant(),
              event.getType(),
              new Id(event.getSandbox()),
              Optional.ofNullable(event.getCall()).map(Id::new),
              data));
    }
    return List.copyOf(events);
  }

  private static ObjectNode body(Range range, byte[] bytes) {
    ObjectNode body = JsonNodeFactory.instance.objectNode();
    body.put("channel", range.stream().channel().wireName());
    body.put("offset", range.offset());
    try {
      body.put(
          "text", StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString());
    } catch (CharacterCodingException _) {
      body.put("base64", Base64.getEncoder().encodeToString(bytes));
    }
    if (bytes.length < range.length()) {
      // Retention drops output before it drops events.
      body.put("missing", range.length() - bytes.length);
    }
    return body;
  }

  /// Bytes from `offset` up to a hole or the end.
  static byte[] slice(NavigableMap<Long, byte[]> chunks, long offset, int maxBytes) {
    ByteArrayOutputStream found = new ByteArrayOutputStream();
    long at = offset;
    while (found.size() < maxBytes) {
      Map.Entry<Long, byte[]> chunk = chunks.floorEntry(at);
      if (chunk == null || chunk.getKey() + chunk.getValue().length <= at) {
        break;
      }
      int start = Math.toIntExact(at - chunk.getKey());
      int count = Math.min(chunk.getValue().length - start, maxBytes - found.size());
      found.write(chunk.getValue(), start, count);
      at += count;
    }
    return found.toByteArray();
  }
}
