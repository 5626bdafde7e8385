package dev.foredeck.cli;

import java.io.Console;
import java.io.PrintStream;
import java.util.Map;

/// Where a command writes for a person. Colour is an extra: nothing is said by it alone.
final class Terminal {
  /// A colour by what it is for.
  enum Style {
    PLAIN(""),
    STRONG("1"),
    FAINT("2"),
    GOOD("32"),
    BAD("31"),
    ACCENT("36");

    private final String code;

    Style(String code) {
      this.code = code;
    }
  }

  private final PrintStream out;
  private final boolean colour;

  Terminal(PrintStream out, boolean colour) {
    this.out = out;
    this.colour = colour;
  }

  /// On a terminal only, and not where `NO_COLOR` (no-color.org) or `TERM=dumb` says no.
  @SuppressWarnings("SystemConsoleNull") // JDK 25 went back to a console that may be absent
  static boolean wantsColour(Map<String, String> environment) {
    boolean refused = !environment.getOrDefault("NO_COLOR", "").isEmpty();
    boolean dumb = environment.getOrDefault("TERM", "dumb").equals("dumb");
    Console console = System.console();
    return !refused && !dumb && console != null && console.isTerminal();
  }

  PrintStream out() {
    return out;
  }

  void line(String text) {
    out.println(text);
    out.flush();
  }

  void line() {
    line("");
  }

  String styled(Style style, String text) {
    if (!colour || style == Style.PLAIN || text.isEmpty()) {
      return text;
    }
    return "\u001b[" + style.code + "m" + text + "\u001b[0m";
  }

  /// Text from a sandbox or the web, made safe to show: a terminal obeys control characters, and a
  /// person believes what bidirectional overrides show.
  static String harmless(String text) {
    StringBuilder shown = new StringBuilder(text.length());
    text.codePoints()
        .forEach(c -> {
          switch (Character.getType(c)) {
            case Character.CONTROL -> {
              if (c == '\t') {
                shown.append("    ");
              } else {
                shown.append(String.format("\\x%02x", c));
              }
            }
            case Character.FORMAT,
                Character.SURROGATE,
                Character.LINE_SEPARATOR,
                Character.PARAGRAPH_SEPARATOR ->
                shown.append(String.format("\\u%04x", c));
            default -> shown.appendCodePoint(c);
          }
        });
    return shown.toString();
  }
}
