package dev.foredeck.cli;

import com.fasterxml.jackson.databind.JsonNode;
import java.time.Instant;

/// One event of a sandbox's log.
///
/// @param seq from 1 in its sandbox's log
/// @param call empty where it belongs to none
record LogEvent(long seq, Instant time, String type, String sandbox, String call, JsonNode data) {

  /// A text of the event's data; empty where there is none.
  String text(String field) {
    return data.path(field).asText("");
  }

  /// Whether nothing happens in this log after it.
  boolean endsTheLog() {
    return type.equals("sandbox.phase")
        && (text("phase").equals("gone") || text("phase").equals("failed"));
  }
}
