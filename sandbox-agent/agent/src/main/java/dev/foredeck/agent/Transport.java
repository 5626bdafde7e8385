package dev.foredeck.agent;

import dev.foredeck.protocol.Connection;
import java.io.IOException;

/// Where connections to the control plane come from: the agent dials here, and may listen
/// elsewhere. What is spoken on them is the same.
interface Transport {
  /// Waits for the next connection.
  Connection next() throws IOException, InterruptedException;
}
