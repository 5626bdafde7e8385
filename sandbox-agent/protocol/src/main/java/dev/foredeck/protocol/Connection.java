package dev.foredeck.protocol;

import java.io.IOException;
import org.jspecify.annotations.Nullable;

/// A two-way stream of messages between the control plane and an agent. One thread may send while
/// another receives; `send` may be called by several threads.
public interface Connection extends AutoCloseable {

  /// Blocks while the other side does not read.
  void send(Message message) throws IOException;

  /// Blocks for the next message.
  ///
  /// @return null when the other side has closed
  @Nullable Message receive() throws IOException;

  /// Closes both directions and frees whoever blocks in [#send] or [#receive]. Idempotent.
  @Override
  void close();
}
