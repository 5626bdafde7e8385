package dev.foredeck.core.gate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Wire.MalformedMessageException;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

final class InboxTest {
  /// Says what it was given, then closes.
  private static final class Script implements Connection {
    private final Deque<Message> messages;

    Script(Message... messages) {
      this.messages = new ArrayDeque<>(List.of(messages));
    }

    @Override
    public void send(Message message) {
      throw new AssertionError("an inbox sends nothing");
    }

    @Override
    public @Nullable Message receive() {
      return messages.poll();
    }

    @Override
    public void close() {}
  }

  @Test
  void keepsNothingThatHasNoPlaceInAProcesssStream() throws Exception {
    Message listing = new Message.FileList(List.of(), false);
    Script script = new Script(new Message.Started(7), listing, listing);
    Inbox inbox = new Inbox(script, 64, 1024);
    inbox.fill();
    assertThat(inbox.take(0)).containsExactly(new Message.Started(7));
    assertThatThrownBy(() -> inbox.take(0))
        .isInstanceOf(MalformedMessageException.class)
        .hasMessageContaining("FileList");
    assertThat(script.messages).hasSize(1);
  }
}
