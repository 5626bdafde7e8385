package dev.foredeck.policy;

import java.util.List;

/// A node of a YAML document that still knows where it stood, so that every fault can say so.
sealed interface YamlNode {

  /// From 1.
  int line();

  /// From 1, in code points.
  int column();

  /// What the node is, for a person.
  String kind();

  /// @param plain written without quotes or a block sign, so that `true` and `12` are not text
  /// @param indicator columns between the node's start and its text, or -1 where the text does not
  ///   stand in the source as it is (several lines, escapes)
  record Scalar(String text, boolean plain, boolean literal, int indicator, int line, int column)
      implements YamlNode {

    boolean isNull() {
      return plain
          && switch (text) {
            case "", "~", "null", "Null", "NULL" -> true;
            default -> false;
          };
    }

    boolean isBoolean() {
      return plain
          && switch (text) {
            case "true", "True", "TRUE", "false", "False", "FALSE" -> true;
            default -> false;
          };
    }

    boolean isNumber() {
      if (!plain || text.isEmpty()) {
        return false;
      }
      int start = text.charAt(0) == '-' || text.charAt(0) == '+' ? 1 : 0;
      boolean digit = false;
      for (int i = start; i < text.length(); i++) {
        char c = text.charAt(i);
        if (c >= '0' && c <= '9') {
          digit = true;
        } else if (!(c == '.' || (digit && (c == 'e' || c == 'E' || c == 'x' || c == 'o')))) {
          return false;
        }
      }
      return digit && text.indexOf('.') == text.lastIndexOf('.');
    }

    @Override
    public String kind() {
      if (isNull()) {
        return "nothing";
      }
      if (isBoolean()) {
        return "a boolean";
      }
      if (isNumber()) {
        return "a number";
      }
      return "a string";
    }
  }

  record Sequence(List<YamlNode> items, int line, int column) implements YamlNode {
    @Override
    public String kind() {
      return "a list";
    }
  }

  record Entry(Scalar key, YamlNode value) {}

  record Mapping(List<Entry> entries, int line, int column) implements YamlNode {
    @Override
    public String kind() {
      return "a mapping";
    }
  }
}
