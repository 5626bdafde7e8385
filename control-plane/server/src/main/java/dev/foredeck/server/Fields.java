package dev.foredeck.server;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Problem.Violation;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;

/// Reads the fields of one JSON object strictly and gathers everything that is wrong, so that a
/// client repairs its request once. Each reader marks its field as known; [#done] refuses the rest.
final class Fields {
  private static final int VIOLATIONS = 50;
  private static final int SHOWN_NAME = 64;

  private final ObjectNode object;
  private final String pointer;
  private final List<Violation> violations;
  private final Set<String> known = new LinkedHashSet<>();

  Fields(ObjectNode object, String pointer, List<Violation> violations) {
    this.object = object;
    this.pointer = pointer;
    this.violations = violations;
  }

  /// The pointer of a field.
  String at(String name) {
    return pointer + "/" + escape(name);
  }

  void refuse(String at, String code, String message) {
    if (violations.size() < VIOLATIONS) {
      violations.add(new Violation(at, code, message));
    }
  }

  boolean has(String name) {
    known.add(name);
    return object.has(name);
  }

  /// A feature that is not there yet is refused by name, never ignored.
  void notSupported(String name, String why) {
    if (has(name)) {
      refuse(at(name), "not-supported", "`" + name + "` is not supported yet: " + why);
    }
  }

  void missing(String name, String message) {
    refuse(at(name), "missing-field", message);
  }

  /// @param maxBytes of its UTF-8 form
  Optional<String> text(String name, int maxBytes) {
    return node(name).flatMap(node -> text(node, at(name), maxBytes, false));
  }

  /// Text that may hold a NUL: it goes to a file or a pipe, never into a name.
  Optional<String> content(String name, int maxBytes) {
    return node(name).flatMap(node -> text(node, at(name), maxBytes, true));
  }

  Optional<Boolean> flag(String name) {
    Optional<JsonNode> node = node(name);
    if (node.isEmpty()) {
      return Optional.empty();
    }
    if (!node.get().isBoolean()) {
      wrongType(at(name), "true or false", node.get());
      return Optional.empty();
    }
    return Optional.of(node.get().booleanValue());
  }

  OptionalLong integer(String name, long min, long max) {
    Optional<JsonNode> node = node(name);
    if (node.isEmpty()) {
      return OptionalLong.empty();
    }
    if (!node.get().isIntegralNumber()) {
      wrongType(at(name), "a whole number", node.get());
      return OptionalLong.empty();
    }
    if (!node.get().canConvertToLong()
        || node.get().longValue() < min
        || node.get().longValue() > max) {
      refuse(at(name), "bad-value", "`" + name + "` must be from " + min + " to " + max);
      return OptionalLong.empty();
    }
    return OptionalLong.of(node.get().longValue());
  }

  /// A number or a text, as text: sizes and CPU shares may be written either way.
  Optional<String> quantity(String name) {
    Optional<JsonNode> node = node(name);
    if (node.isPresent() && node.get().isNumber()) {
      // Plain notation: `1E400` must not become a text of 400 digits.
      String digits = node.get().asText();
      return Optional.of(digits.length() > 32 ? "?" : digits);
    }
    return text(name, 32);
  }

  Optional<Fields> object(String name) {
    Optional<JsonNode> node = node(name);
    if (node.isEmpty()) {
      return Optional.empty();
    }
    if (!(node.get() instanceof ObjectNode child)) {
      wrongType(at(name), "an object", node.get());
      return Optional.empty();
    }
    return Optional.of(new Fields(child, at(name), violations));
  }

  /// A list of texts, in order; empty optional when the field is not there or is wrong.
  Optional<List<String>> texts(String name, int maxCount, int maxBytes) {
    Optional<JsonNode> node = array(name, maxCount);
    if (node.isEmpty()) {
      return Optional.empty();
    }
    List<String> values = new ArrayList<>();
    int index = 0;
    for (JsonNode element : node.get()) {
      text(element, at(name) + "/" + index++, maxBytes, false).ifPresent(values::add);
    }
    return Optional.of(values);
  }

  List<Fields> objects(String name, int maxCount) {
    List<Fields> values = new ArrayList<>();
    Optional<JsonNode> node = array(name, maxCount);
    if (node.isEmpty()) {
      return values;
    }
    int index = 0;
    for (JsonNode element : node.get()) {
      String at = at(name) + "/" + index++;
      if (element instanceof ObjectNode child) {
        values.add(new Fields(child, at, violations));
      } else {
        wrongType(at, "an object", element);
      }
    }
    return values;
  }

  /// An object whose values are texts, in the client's order.
  Map<String, String> map(String name, int maxCount, int maxBytes) {
    Map<String, String> values = new LinkedHashMap<>();
    Optional<JsonNode> node = node(name);
    if (node.isEmpty()) {
      return values;
    }
    if (!(node.get() instanceof ObjectNode child)) {
      wrongType(at(name), "an object of texts", node.get());
      return values;
    }
    if (child.size() > maxCount) {
      refuse(at(name), "too-large", "`" + name + "` may have " + maxCount + " entries");
      return values;
    }
    for (Map.Entry<String, JsonNode> entry : child.properties()) {
      String at = at(name) + "/" + escape(shown(entry.getKey()));
      text(entry.getValue(), at, maxBytes, false)
          .ifPresent(value -> values.put(entry.getKey(), value));
    }
    return values;
  }

  /// Refuses every field that nothing asked for.
  void done() {
    for (Map.Entry<String, JsonNode> entry : object.properties()) {
      String name = entry.getKey();
      if (!known.contains(name)) {
        refuse(at(shown(name)), "unknown-field", unknown("field", name, known));
      }
    }
  }

  /// `there is no field x; did you mean y?`
  static String unknown(String what, String name, Set<String> known) {
    String best = "";
    int bestDistance = Integer.MAX_VALUE;
    for (String candidate : known) {
      int distance = distance(shown(name), candidate);
      if (distance < bestDistance) {
        best = candidate;
        bestDistance = distance;
      }
    }
    String message = "there is no " + what + " `" + shown(name) + "` here";
    if (!best.isEmpty()
        && bestDistance <= Math.max(1, Math.min(name.length(), best.length()) / 3)) {
      return message + "; did you mean `" + best + "`?";
    }
    return known.isEmpty() ? message : message + "; known are " + String.join(", ", known);
  }

  private Optional<JsonNode> node(String name) {
    known.add(name);
    JsonNode node = object.get(name);
    return Optional.ofNullable(node);
  }

  private Optional<JsonNode> array(String name, int maxCount) {
    Optional<JsonNode> node = node(name);
    if (node.isEmpty()) {
      return Optional.empty();
    }
    if (!node.get().isArray()) {
      wrongType(at(name), "a list", node.get());
      return Optional.empty();
    }
    if (node.get().size() > maxCount) {
      refuse(at(name), "too-large", "`" + name + "` may have " + maxCount + " entries");
      return Optional.empty();
    }
    return node;
  }

  private Optional<String> text(JsonNode node, String at, int maxBytes, boolean nul) {
    if (!node.isTextual()) {
      wrongType(at, "a text", node);
      return Optional.empty();
    }
    String text = node.textValue();
    if (!nul && text.indexOf('\0') >= 0) {
      refuse(at, "bad-value", "a NUL is not allowed here");
      return Optional.empty();
    }
    if (!WorkspacePath.wellFormed(text)) {
      refuse(at, "bad-value", "this is not valid Unicode: it has half of a surrogate pair");
      return Optional.empty();
    }
    if (utf8Length(text) > maxBytes) {
      refuse(at, "too-large", "this may have " + maxBytes + " bytes");
      return Optional.empty();
    }
    return Optional.of(text);
  }

  private void wrongType(String at, String wanted, JsonNode node) {
    String given =
        switch (node.getNodeType()) {
          case ARRAY -> "a list";
          case BOOLEAN -> "true or false";
          case NULL -> "null";
          case NUMBER -> "a number";
          case OBJECT, POJO -> "an object";
          case STRING, BINARY -> "a text";
          case MISSING -> "nothing";
        };
    refuse(at, "wrong-type", "this must be " + wanted + ", not " + given);
  }

  /// Without making the bytes.
  static long utf8Length(String text) {
    long length = 0;
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      if (c < 0x80) {
        length += 1;
      } else if (c < 0x800 || Character.isSurrogate(c)) {
        length += 2;
      } else {
        length += 3;
      }
    }
    return length;
  }

  /// Names come from the client: what an answer repeats of them is bounded.
  private static String shown(String name) {
    StringBuilder shown = new StringBuilder();
    for (int i = 0; i < name.length() && i < SHOWN_NAME; i++) {
      char c = name.charAt(i);
      shown.append(Character.isISOControl(c) || Character.isSurrogate(c) ? '?' : c);
    }
    return name.length() > SHOWN_NAME ? shown + "..." : shown.toString();
  }

  private static String escape(String name) {
    return name.replace("~", "~0").replace("/", "~1");
  }

  /// Edits between two names; neighbours that were swapped are one.
  private static int distance(String a, String b) {
    int[] beforePrevious = new int[b.length() + 1];
    int[] previous = new int[b.length() + 1];
    for (int j = 0; j <= b.length(); j++) {
      previous[j] = j;
    }
    for (int i = 1; i <= a.length(); i++) {
      int[] current = new int[b.length() + 1];
      current[0] = i;
      for (int j = 1; j <= b.length(); j++) {
        int change = same(a.charAt(i - 1), b.charAt(j - 1)) ? 0 : 1;
        current[j] = Math.min(Math.min(current[j - 1], previous[j]) + 1, previous[j - 1] + change);
        if (i > 1
            && j > 1
            && same(a.charAt(i - 1), b.charAt(j - 2))
            && same(a.charAt(i - 2), b.charAt(j - 1))) {
          current[j] = Math.min(current[j], beforePrevious[j - 2] + 1);
        }
      }
      beforePrevious = previous;
      previous = current;
    }
    return previous[b.length()];
  }

  private static boolean same(char a, char b) {
    return Character.toLowerCase(a) == Character.toLowerCase(b);
  }
}
