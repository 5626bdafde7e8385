package dev.foredeck.cli;

import java.util.ArrayList;
import java.util.List;

/// A command line in a variable: words as a shell reads them, with quotes and backslashes, and
/// nothing that a shell would expand.
final class ShellWords {
  private ShellWords() {}

  /// @throws IllegalArgumentException where a quote is not closed
  static List<String> split(String line) {
    List<String> words = new ArrayList<>();
    StringBuilder word = new StringBuilder();
    boolean inWord = false;
    char quote = 0;
    for (int i = 0; i < line.length(); i++) {
      char c = line.charAt(i);
      if (quote == '\'' || (quote == '"' && c != '\\')) {
        if (c == quote) {
          quote = 0;
        } else {
          word.append(c);
        }
      } else if (c == '\\') {
        if (++i == line.length()) {
          throw new IllegalArgumentException("it ends in a backslash");
        }
        inWord = true;
        word.append(line.charAt(i));
      } else if (c == '\'' || c == '"') {
        quote = c;
        inWord = true;
      } else if (Character.isWhitespace(c)) {
        if (inWord) {
          words.add(word.toString());
          word.setLength(0);
          inWord = false;
        }
      } else {
        inWord = true;
        word.append(c);
      }
    }
    if (quote != 0) {
      throw new IllegalArgumentException("a " + quote + " is not closed");
    }
    if (inWord) {
      words.add(word.toString());
    }
    return List.copyOf(words);
  }

  /// One word that a shell reads as `text`.
  static String quote(String text) {
    if (!text.isEmpty() && text.matches("[A-Za-z0-9_./:=@%+,-]+")) {
      return text;
    }
    return "'" + text.replace("'", "'\\''") + "'";
  }
}
