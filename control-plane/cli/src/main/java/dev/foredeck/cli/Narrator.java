package dev.foredeck.cli;

import com.fasterxml.jackson.databind.JsonNode;
import dev.foredeck.cli.Terminal.Style;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/// Shows a log as it happens: a line an event, with the seconds since the first. Everything from
/// the stream is made harmless before it is shown. Not thread-safe.
final class Narrator {
  private static final int LONGEST_LINE_BYTES = 8 * 1024;
  private static final int LONGEST_UNKNOWN_CHARS = 160;
  private static final int DIGEST_CHARS = 12;
  private static final String SHADOW = " (shadow: recorded, not enforced)";

  private final Terminal terminal;
  private final Map<String, ByteArrayOutputStream> unfinished = new TreeMap<>();
  private Optional<Instant> start = Optional.empty();

  Narrator(Terminal terminal) {
    this.terminal = terminal;
  }

  void show(LogEvent event) {
    if (start.isEmpty()) {
      start = Optional.of(event.time());
    }
    JsonNode data = event.data();
    switch (event.type()) {
      case "sandbox.phase" -> phase(event);
      case "call.requested" -> requested(event);
      case "call.decided" -> decided(event);
      case "call.started" -> line(event, Style.FAINT, "started", started(data));
      case "output" -> output(event);
      case "output.truncated" ->
          line(
              event,
              Style.BAD,
              "cut",
              event.text("channel") + " is no longer recorded after byte " + data.path("offset"));
      case "call.output" -> copiedOut(event);
      case "call.ended" -> ended(event);
      case "egress.flow" -> flow(event);
      case "file.changed" ->
          line(event, Style.FAINT, "file", event.text("path") + " " + event.text("change"));
      default -> {
        String text = data.toString();
        if (text.length() > LONGEST_UNKNOWN_CHARS) {
          text = text.substring(0, LONGEST_UNKNOWN_CHARS) + "…";
        }
        line(event, Style.FAINT, event.type(), text);
      }
    }
  }

  /// What the client says itself, between events.
  void note(String text) {
    terminal.line(terminal.styled(Style.FAINT, " ".repeat(11) + Terminal.harmless(text)));
  }

  private void phase(LogEvent event) {
    Style style =
        switch (event.text("phase")) {
          case "ready" -> Style.GOOD;
          case "failed" -> Style.BAD;
          default -> Style.ACCENT;
        };
    String reason = event.text("reason");
    line(event, style, "sandbox", event.text("phase") + (reason.isEmpty() ? "" : ": " + reason));
  }

  private void requested(LogEvent event) {
    JsonNode arguments = event.data().path("arguments");
    StringBuilder text = new StringBuilder(event.text("tool"));
    if (arguments.has("language")) {
      text.append(' ').append(arguments.path("language").asText());
    }
    if (arguments.path("argv").isArray()) {
      List<String> words = new ArrayList<>();
      arguments.path("argv").forEach(word -> words.add(ShellWords.quote(word.asText())));
      text.append(' ').append(String.join(" ", words));
    }
    String digest = event.text("digest").replaceFirst("^sha256:", "");
    if (!digest.isEmpty()) {
      text.append("  digest ").append(digest, 0, Math.min(DIGEST_CHARS, digest.length()));
    }
    String who = event.data().path("principal").path("name").asText("");
    if (!who.isEmpty()) {
      text.append("  by ").append(who);
    }
    line(event, Style.ACCENT, "call", text.toString());
  }

  private void decided(LogEvent event) {
    List<String> rules = new ArrayList<>();
    event.data().path("rules").forEach(rule -> rules.add(rule.asText()));
    String by = rules.isEmpty() ? "no rule" : "rule " + String.join(", ", rules);
    String text = by + " of " + event.text("policy");
    if (!event.text("reason").isEmpty()) {
      text += ": " + event.text("reason");
    }
    if (event.text("mode").equals("shadow")) {
      text += SHADOW;
    }
    line(event, effect(event), event.text("effect"), text);
  }

  private static String started(JsonNode data) {
    return data.has("pid") ? "process " + data.path("pid").asLong() + " in the sandbox" : "";
  }

  private void output(LogEvent event) {
    String key = event.call() + " " + event.text("channel");
    ByteArrayOutputStream line = unfinished.computeIfAbsent(key, _ -> new ByteArrayOutputStream());
    for (byte b : bytes(event.data())) {
      if (b == '\n') {
        flush(event, key);
      } else {
        if (line.size() >= LONGEST_LINE_BYTES) {
          flush(event, key);
        }
        line.write(b);
      }
    }
  }

  /// Characters may be cut at the end of an event: lines are put together as bytes.
  private static byte[] bytes(JsonNode data) {
    if (data.has("text")) {
      return data.path("text").asText().getBytes(StandardCharsets.UTF_8);
    }
    try {
      return Base64.getDecoder().decode(data.path("base64").asText(""));
    } catch (IllegalArgumentException e) {
      return "(output that is not base64)".getBytes(StandardCharsets.UTF_8);
    }
  }

  private void flush(LogEvent event, String key) {
    ByteArrayOutputStream bytes = unfinished.getOrDefault(key, new ByteArrayOutputStream());
    String text = bytes.toString(StandardCharsets.UTF_8);
    bytes.reset();
    if (text.endsWith("\r")) {
      text = text.substring(0, text.length() - 1);
    }
    boolean bad = key.endsWith(" stderr");
    String mark = terminal.styled(bad ? Style.BAD : Style.FAINT, bad ? "┃" : "│");
    terminal.line(stamp(event) + " ".repeat(10) + mark + " " + Terminal.harmless(text));
  }

  private void copiedOut(LogEvent event) {
    if (event.data().has("missing")) {
      line(
          event,
          Style.BAD,
          "missing",
          event.text("path") + ": " + event.data().path("missing").asText());
      return;
    }
    String digest = event.text("sha256");
    line(
        event,
        Style.ACCENT,
        "output",
        event.text("path")
            + "  "
            + size(event.data().path("size").asLong())
            + "  sha256 "
            + digest.substring(0, Math.min(DIGEST_CHARS, digest.length())));
  }

  private void ended(LogEvent event) {
    for (Map.Entry<String, ByteArrayOutputStream> entry : unfinished.entrySet()) {
      if (entry.getKey().startsWith(event.call() + " ") && entry.getValue().size() > 0) {
        flush(event, entry.getKey());
      }
    }
    unfinished.keySet().removeIf(key -> key.startsWith(event.call() + " "));
    JsonNode data = event.data();
    StringBuilder text = new StringBuilder(event.text("status"));
    if (data.path("exitCode").isInt()) {
      text.append(" with ").append(data.path("exitCode").asInt());
    }
    if (data.path("signal").asInt(0) > 0) {
      text.append(" by signal ").append(data.path("signal").asInt());
    }
    if (!event.text("reason").isEmpty()) {
      text.append(": ").append(event.text("reason"));
    }
    JsonNode usage = data.path("usage");
    if (usage.isObject()) {
      text.append(
          String.format(
              Locale.ROOT,
              "  CPU %.2f s  peak memory %s  wall %.2f s  output %s",
              usage.path("cpuSeconds").asDouble(),
              size(usage.path("peakMemoryBytes").asLong()),
              usage.path("wallMillis").asLong() / 1e3,
              size(usage.path("outputBytes").asLong())));
    }
    boolean good = event.text("status").equals("exited") && data.path("exitCode").asInt(-1) == 0;
    line(event, good ? Style.GOOD : Style.BAD, "ended", text.toString());
  }

  private void flow(LogEvent event) {
    JsonNode data = event.data();
    StringBuilder text = new StringBuilder(event.text("effect"));
    text.append(' ').append(event.text("method")).append(' ').append(event.text("host"));
    text.append(':').append(data.path("port").asInt()).append(event.text("path"));
    text.append("  rule ").append(event.text("rule"));
    if (event.text("effect").equals("allow")) {
      if (event.text("mode").equals("shadow")) {
        text.append(SHADOW);
      }
      text.append(
          String.format(
              "  %s in  %s out  %d ms",
              size(data.path("bytesIn").asLong()),
              size(data.path("bytesOut").asLong()),
              data.path("millis").asLong()));
    } else if (!event.text("reason").isEmpty()) {
      text.append(": ").append(event.text("reason"));
    }
    line(event, effect(event), "egress", text.toString());
  }

  private static Style effect(LogEvent event) {
    return event.text("effect").equals("allow") ? Style.GOOD : Style.BAD;
  }

  private void line(LogEvent event, Style style, String kind, String text) {
    String name = String.format("%-8s", Terminal.harmless(kind));
    terminal.line(
        stamp(event) + " " + terminal.styled(style, name) + " " + Terminal.harmless(text).strip());
  }

  private String stamp(LogEvent event) {
    Duration since = Duration.between(start.orElse(event.time()), event.time());
    return terminal.styled(
        Style.FAINT, String.format(Locale.ROOT, "%+10.3f", since.toNanos() / 1e9));
  }

  /// As `21.6 KiB`.
  static String size(long bytes) {
    if (bytes < 1024) {
      return bytes + " B";
    }
    String[] units = {"KiB", "MiB", "GiB", "TiB"};
    double value = bytes / 1024.0;
    int unit = 0;
    while (value >= 1024 && unit < units.length - 1) {
      value /= 1024;
      unit++;
    }
    return String.format(Locale.ROOT, value < 100 ? "%.1f %s" : "%.0f %s", value, units[unit]);
  }
}
