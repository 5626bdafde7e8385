package dev.foredeck.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.cli.EventStreamParser.Sent;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class EventStreamParserTest {

  private static List<Sent> read(InputStream in) throws IOException {
    EventStreamParser parser = new EventStreamParser(in);
    List<Sent> events = new ArrayList<>();
    for (Optional<Sent> sent = parser.next(); sent.isPresent(); sent = parser.next()) {
      events.add(sent.get());
    }
    return events;
  }

  private static List<Sent> read(String text) throws IOException {
    return read(new ByteArrayInputStream(text.getBytes(StandardCharsets.UTF_8)));
  }

  @ParameterizedTest
  @ValueSource(strings = {"\n", "\r\n", "\r"})
  void readsEventsWhateverEndsALine(String end) throws IOException {
    String text = "id: 1\nevent: output\ndata: {\"a\":\ndata: 1}\n\nid:2\ndata:x\n\n";

    assertThat(read(text.replace("\n", end)))
        .containsExactly(new Sent("1", "output", "{\"a\":\n1}"), new Sent("2", "message", "x"));
  }

  @Test
  void readsEventsThatArriveAByteAtATime() throws IOException {
    byte[] bytes = "\uFEFFid: 7\ndata: ümläut █\n\n".getBytes(StandardCharsets.UTF_8);
    InputStream slow =
        new ByteArrayInputStream(bytes) {
          @Override
          public synchronized int read(byte[] into, int offset, int length) {
            return super.read(into, offset, Math.min(1, length));
          }
        };

    assertThat(read(slow)).containsExactly(new Sent("7", "message", "ümläut █"));
  }

  @Test
  void passesOverHeartbeatsAndUnknownFields() throws IOException {
    assertThat(read(":\n\nretry: 1000\n\nfuture: x\ndata: a\n\n:\n\n"))
        .containsExactly(new Sent("", "message", "a"));
  }

  @Test
  void dropsAnEventThatTheEndOfTheStreamCuts() throws IOException {
    assertThat(read("id: 1\ndata: a\n\nid: 2\ndata: b\n")).hasSize(1);
    assertThat(read("id: 1\ndata: a\n\nid: 2\ndata: b")).hasSize(1);
  }

  @Test
  void refusesALineWithoutEnd() {
    InputStream endless =
        new InputStream() {
          @Override
          public int read() {
            return 'x';
          }
        };

    assertThatThrownBy(() -> read(endless))
        .isInstanceOf(IOException.class)
        .hasMessageContaining("a line of more than");
  }

  @Test
  void refusesAnEventWithoutEnd() {
    String line = "data: " + "x".repeat(1_000_000) + "\n";

    assertThatThrownBy(() -> read(line.repeat(9)))
        .isInstanceOf(IOException.class)
        .hasMessageContaining("an event of more than");
  }
}
