package dev.foredeck.driver.simulated;

import dev.foredeck.driver.simulated.Faults.AgentFault;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Wire;
import java.io.IOException;
import org.jspecify.annotations.Nullable;

/// The control plane's end of a connection, after the greeting: what arrives is what a broken or
/// hostile agent would have sent.
final class FaultyConnection implements Connection {
  private final Connection inner;
  private final AgentFault fault;
  private final Runnable die;
  private final Runnable onClose;
  private @Nullable Message again;
  private boolean answered;

  /// @param die ends the agent
  /// @param onClose is run at each close
  FaultyConnection(Connection inner, AgentFault fault, Runnable die, Runnable onClose) {
    this.inner = inner;
    this.fault = fault;
    this.die = die;
    this.onClose = onClose;
  }

  @Override
  public void send(Message message) throws IOException {
    inner.send(message);
  }

  @Override
  public @Nullable Message receive() throws IOException {
    if (again != null) {
      Message repeated = again;
      again = null;
      return repeated;
    }
    if (answered && fault == AgentFault.DROPS_CONNECTION) {
      close();
      return null;
    }
    if (answered && fault == AgentFault.DIES) {
      die.run();
    }
    Message message = inner.receive();
    answered = true;
    return message == null ? null : distort(message);
  }

  private @Nullable Message distort(Message message) throws IOException {
    return switch (fault) {
      case NONE, DROPS_CONNECTION, DIES, UNKNOWN_VERSION, WRONG_TOKEN, NEVER_GREETS -> message;
      case NEVER_ANSWERS -> {
        // Until somebody loses patience.
        Message ignored;
        do {
          ignored = inner.receive();
        } while (ignored != null);
        yield null;
      }
      case OVERSIZED_MESSAGE -> {
        close();
        throw new Wire.MalformedMessageException(
            "a frame of " + Integer.MAX_VALUE + " bytes, at most " + Limits.FRAME_BYTES);
      }
      case OFFSET_TOO_HIGH ->
          message instanceof Message.Output output
              ? new Message.Output(output.channel(), output.offset() + 1, output.bytes())
              : message;
      case OFFSET_TOO_LOW -> {
        again = message instanceof Message.Output ? message : null;
        yield message;
      }
    };
  }

  @Override
  public void close() {
    inner.close();
    onClose.run();
  }
}
