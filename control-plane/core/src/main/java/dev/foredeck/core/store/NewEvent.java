package dev.foredeck.core.store;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Id;
import java.time.Instant;
import java.util.Optional;

/// An event before it has its `seq`.
///
/// @param type as in the design's table: `sandbox.phase`, `call.requested`, ...
/// @param data the body; an `output` event's body is `{"channel","offset","length"}`: its bytes
///   live in the chunk table and readers get them joined
public record NewEvent(Instant time, String type, Optional<Id> call, ObjectNode data) {}
