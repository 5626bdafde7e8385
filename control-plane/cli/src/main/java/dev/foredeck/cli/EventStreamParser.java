package dev.foredeck.cli;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Optional;

/// Reads server-sent events as the HTML standard says. An event counts only with the empty line
/// that ends it: what a dropped connection cut is not an event. Not thread-safe.
final class EventStreamParser {
  /// A chart of 256 KiB as base64 and its envelope fit eight times.
  static final int MAX_LINE_BYTES = 4 * 1024 * 1024;

  static final int MAX_EVENT_CHARS = 8 * 1024 * 1024;

  /// One event as it was sent.
  ///
  /// @param id empty where the event has none of its own
  record Sent(String id, String type, String data) {}

  private final InputStream in;
  private final byte[] buffer = new byte[16 * 1024];
  private int next;
  private int end;
  private byte[] line = new byte[1024];
  private boolean afterReturn;
  private boolean first = true;

  EventStreamParser(InputStream in) {
    this.in = in;
  }

  /// The next event; empty at the end of the stream.
  ///
  /// @throws IOException where the connection breaks, or a line or event is too large
  Optional<Sent> next() throws IOException {
    String id = "";
    String type = "";
    StringBuilder data = new StringBuilder();
    boolean hasData = false;
    while (true) {
      Optional<String> read = line();
      if (read.isEmpty()) {
        return Optional.empty();
      }
      String text = read.get();
      if (text.isEmpty()) {
        if (hasData) {
          return Optional.of(new Sent(id, type.isEmpty() ? "message" : type, data.toString()));
        }
        id = "";
        type = "";
        continue;
      }
      int colon = text.indexOf(':');
      String field = colon < 0 ? text : text.substring(0, colon);
      String value = colon < 0 ? "" : text.substring(colon + 1);
      if (value.startsWith(" ")) {
        value = value.substring(1);
      }
      switch (field) {
        case "id" -> id = value;
        case "event" -> type = value;
        case "data" -> {
          if (hasData) {
            data.append('\n');
          }
          hasData = true;
          data.append(value);
          if (data.length() > MAX_EVENT_CHARS) {
            throw new IOException("an event of more than " + MAX_EVENT_CHARS + " characters");
          }
        }
        default -> {
          // Comments (heartbeats), `retry`, and what a later server may add.
        }
      }
    }
  }

  /// Without its end, which is LF, CR or CRLF. A line that the stream's end cuts is none.
  private Optional<String> line() throws IOException {
    int length = 0;
    while (true) {
      if (next == end) {
        end = in.read(buffer);
        next = 0;
        if (end < 0) {
          end = 0;
          return Optional.empty();
        }
        continue;
      }
      byte b = buffer[next++];
      boolean secondHalf = afterReturn && b == '\n';
      afterReturn = b == '\r';
      if (secondHalf) {
        continue;
      }
      if (b == '\n' || b == '\r') {
        String text = new String(line, 0, length, StandardCharsets.UTF_8);
        boolean mark = first && text.startsWith("\uFEFF");
        first = false;
        return Optional.of(mark ? text.substring(1) : text);
      }
      if (length == line.length) {
        if (length >= MAX_LINE_BYTES) {
          throw new IOException("a line of more than " + MAX_LINE_BYTES + " bytes");
        }
        line = Arrays.copyOf(line, Math.min(MAX_LINE_BYTES, length * 2));
      }
      line[length++] = b;
    }
  }
}
