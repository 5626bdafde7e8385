package dev.foredeck.core.store;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Id;
import java.time.Instant;
import java.util.Optional;

/// An event of a log.
///
/// @param seq gap-free from 1 within its sandbox's log
/// @param data the body as clients see it: an `output` event has `channel`, `offset` and `text` or
///   `base64`
public record Event(
    long seq, Instant time, String type, Id sandbox, Optional<Id> call, ObjectNode data) {}
