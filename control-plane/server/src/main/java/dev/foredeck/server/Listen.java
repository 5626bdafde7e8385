package dev.foredeck.server;

import java.time.Duration;

/// Where the server listens and how patient it is. Bounds of what clients may send are in
/// [dev.foredeck.core.Limits]; these are bounds of the sockets themselves.
///
/// @param port 0 for any free one
/// @param connections open at once; more are closed as they come
/// @param bodyMemory bytes of request bodies that are in memory at once: 429 `busy`. A JSON body
///   counts as a whole until its request waits, streams or ends, an upload by its window; small
///   bodies do not count. A JSON body takes about five times its size at its worst moment.
/// @param head for a whole request head to arrive, on a new connection
/// @param idle between two requests of a connection
/// @param body for a whole JSON body, and between two pieces of an upload: 408 `slow-body`
/// @param heartbeat of a feed without events
/// @param stall a write that makes no progress for so long ends the connection
public record Listen(
    String host,
    int port,
    int connections,
    long bodyMemory,
    Duration head,
    Duration idle,
    Duration body,
    Duration heartbeat,
    Duration stall) {

  public static Listen at(String host, int port) {
    return new Listen(
        host,
        port,
        8192,
        64L * 1024 * 1024,
        Duration.ofSeconds(10),
        Duration.ofSeconds(75),
        Duration.ofSeconds(30),
        Duration.ofSeconds(15),
        Duration.ofSeconds(60));
  }
}
