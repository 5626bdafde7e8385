package dev.foredeck.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import org.junit.jupiter.api.Test;

class NarratorTest {
  private static final ObjectMapper JSON = new ObjectMapper();

  private final ByteArrayOutputStream out = new ByteArrayOutputStream();

  private Narrator narrator(boolean colour) {
    return new Narrator(new Terminal(new PrintStream(out, true, StandardCharsets.UTF_8), colour));
  }

  private static LogEvent event(String type, String data) throws IOException {
    JsonNode json = JSON.readTree(data);
    return new LogEvent(1, Instant.EPOCH, type, "sb1", "ca1", json);
  }

  private static void play(Narrator narrator) throws IOException {
    for (String part : Recording.parts()) {
      if (part.contains("data: ")) {
        JsonNode json = JSON.readTree(part.substring(part.indexOf("data: ") + 6));
        narrator.show(
            new LogEvent(
                json.path("seq").asLong(),
                Instant.parse(json.path("time").asText()),
                json.path("type").asText(),
                json.path("sandbox").asText(),
                json.path("call").asText(""),
                json.path("data")));
      }
    }
  }

  @Test
  void tellsALogAsLinesOfAPlainTerminal() throws IOException {
    play(narrator(false));

    assertThat(out.toString(StandardCharsets.UTF_8).lines())
        .containsExactly(
            "    +0.000 sandbox  requested",
            "    +0.001 call     code.run python  digest 3f2a90cc17de  by operator",
            "    +0.001 allow    rule code of default@0a1b2c3d4e5f: this policy allows code in"
                + " /workspace and /tmp",
            "    +0.120 sandbox  starting",
            "    +0.480 sandbox  ready",
            "    +0.486 started  process 7 in the sandbox",
            "    +0.510          │ 144 rows",
            "    +0.540          │ half a line █",
            "    +0.550          ┃ a warning",
            "    +0.700 egress   allow GET example.com:80/  rule example  1.5 KiB in  98 B out"
                + "  41 ms",
            "    +0.710 egress   deny POST collector.example.net:80/upload  rule default: no rule"
                + " allows this host",
            "    +0.800 output   chart.png  9 B  sha256 "
                + DemoFindingsTest.CHART_SHA256.substring(0, 12),
            "    +0.801          │ \\x1b[2m",
            "    +0.801 ended    exited with 0  CPU 0.31 s  peak memory 22.0 MiB  wall 0.32 s"
                + "  output 36 B",
            "    +0.802 sandbox  stopping: its call has ended",
            "    +0.950 sandbox  gone");
  }

  @Test
  void usesColourOnlyWhereItIsWanted() throws IOException {
    play(narrator(true));

    String coloured = out.toString(StandardCharsets.UTF_8);
    assertThat(coloured).contains("\u001b[32m").contains("\u001b[31m");
    out.reset();
    play(narrator(false));
    assertThat(out.toString(StandardCharsets.UTF_8))
        .isEqualTo(coloured.replaceAll("\u001b\\[[0-9]*m", ""));
  }

  @Test
  void obeysNoControlCharactersFromTheStream() throws IOException {
    Narrator narrator = narrator(false);
    narrator.show(
        event("output", "{\"channel\":\"stdout\",\"text\":\"a\\u001b]0;x\\u0007\\rb\\u202e\\n\"}"));
    narrator.show(event("sandbox.phase", "{\"phase\":\"failed\",\"reason\":\"x\\u001b[2Jy\\nz\"}"));
    narrator.show(
        event("egress.flow", "{\"host\":\"a\\u009b1m\",\"effect\":\"deny\",\"rule\":\"r\"}"));

    assertThat(out.toString(StandardCharsets.UTF_8).lines())
        .containsExactly(
            "    +0.000          │ a\\x1b]0;x\\x07\\x0db\\u202e",
            "    +0.000 sandbox  failed: x\\x1b[2Jy\\x0az",
            "    +0.000 egress   deny  a\\x9b1m:0  rule r");
  }

  @Test
  void breaksALineWithoutEnd() throws IOException {
    narrator(false)
        .show(event("output", "{\"channel\":\"stdout\",\"text\":\"" + "x".repeat(20_000) + "\"}"));

    assertThat(out.toString(StandardCharsets.UTF_8).lines()).hasSize(2);
  }

  @Test
  void showsWhatItDoesNotKnowShortly() throws IOException {
    narrator(false).show(event("usage", "{\"note\":\"" + "y".repeat(1000) + "\"}"));

    assertThat(out.toString(StandardCharsets.UTF_8))
        .startsWith("    +0.000 usage    {")
        .hasSizeLessThan(200);
  }

  @Test
  void namesSizesInUnitsOfBytes() {
    assertThat(Narrator.size(0)).isEqualTo("0 B");
    assertThat(Narrator.size(1023)).isEqualTo("1023 B");
    assertThat(Narrator.size(22_069)).isEqualTo("21.6 KiB");
    assertThat(Narrator.size(512L << 20)).isEqualTo("512 MiB");
  }
}
