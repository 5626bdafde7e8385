package dev.foredeck.policy;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// The fields of one mapping, each read as the type it must have. Every reader adds a fault and
/// answers nothing where the field is wrong, so that reading goes on to the next.
final class Fields {
  private static final int MAX_TEXT_LENGTH = 8_192;

  private final Faults faults;
  private final YamlNode.Mapping mapping;
  private final String what;
  private final Map<String, YamlNode> values = new HashMap<>();

  private Fields(
      Faults faults, YamlNode.Mapping mapping, String what, Set<String> known, Set<String> later) {
    this.faults = faults;
    this.mapping = mapping;
    this.what = what;
    for (YamlNode.Entry entry : mapping.entries()) {
      String name = entry.key().text();
      if (known.contains(name)) {
        values.put(name, entry.value());
      } else if (later.contains(name)) {
        faults.add(
            entry.key(),
            "not-supported",
            "'" + name + "' is not supported yet; remove it, it would not be enforced");
      } else {
        faults.add(
            entry.key(),
            "unknown-field",
            "unknown field '" + name + "' in " + what + Nearest.suggestion(name, known));
      }
    }
  }

  /// @param known fields that exist
  /// @param later fields that are named in the format and refused until they exist
  static Optional<Fields> of(
      YamlNode node, String what, Set<String> known, Set<String> later, Faults faults) {
    if (node instanceof YamlNode.Mapping mapping) {
      return Optional.of(new Fields(faults, mapping, what, known, later));
    }
    wrongType(faults, node, what, "a mapping");
    return Optional.empty();
  }

  static Optional<Fields> of(YamlNode node, String what, Set<String> known, Faults faults) {
    return of(node, what, known, Set.of(), faults);
  }

  YamlNode node() {
    return mapping;
  }

  boolean has(String name) {
    return values.containsKey(name);
  }

  /// Whether the field is written, be it known or not.
  boolean mentions(String name) {
    for (YamlNode.Entry entry : mapping.entries()) {
      if (entry.key().text().equals(name)) {
        return true;
      }
    }
    return false;
  }

  /// Whether the field is a list without entries.
  boolean isEmptyList(String name) {
    return values.get(name) instanceof YamlNode.Sequence sequence && sequence.items().isEmpty();
  }

  Optional<YamlNode> get(String name) {
    return Optional.ofNullable(values.get(name));
  }

  Optional<YamlNode> required(String name) {
    if (!values.containsKey(name)) {
      faults.add(mapping, "missing-field", what + " needs '" + name + "'");
    }
    return get(name);
  }

  /// Where the field stands, or where its mapping begins.
  YamlNode at(String name) {
    return get(name).orElse(mapping);
  }

  Optional<String> text(String name) {
    return get(name).flatMap(node -> text(node, "'" + name + "'", faults));
  }

  Optional<String> requiredText(String name) {
    return required(name).flatMap(node -> text(node, "'" + name + "'", faults));
  }

  Optional<Boolean> flag(String name) {
    return get(name)
        .flatMap(node -> {
          if (node instanceof YamlNode.Scalar scalar && scalar.isBoolean()) {
            return Optional.of(scalar.text().toLowerCase(Locale.ROOT).equals("true"));
          }
          wrongType(faults, node, "'" + name + "'", "true or false");
          return Optional.empty();
        });
  }

  /// A quantity, which may be written as a number or as text.
  Optional<YamlNode.Scalar> quantity(String name) {
    return get(name)
        .flatMap(node -> {
          if (node instanceof YamlNode.Scalar scalar && !scalar.isNull() && !scalar.isBoolean()) {
            return Optional.of(scalar);
          }
          wrongType(faults, node, "'" + name + "'", "a quantity");
          return Optional.empty();
        });
  }

  List<YamlNode> items(String name) {
    return items(name, Integer.MAX_VALUE);
  }

  List<YamlNode> items(String name, int limit) {
    YamlNode node = values.get(name);
    if (node == null) {
      return List.of();
    }
    if (!(node instanceof YamlNode.Sequence sequence)) {
      wrongType(faults, node, "'" + name + "'", "a list");
      return List.of();
    }
    if (sequence.items().size() > limit) {
      faults.add(
          sequence,
          "bad-value",
          "'" + name + "' has " + sequence.items().size() + " entries; the limit is " + limit);
      return List.of();
    }
    return sequence.items();
  }

  /// A list of texts.
  List<YamlNode.Scalar> texts(String name, int limit) {
    List<YamlNode.Scalar> texts = new ArrayList<>();
    for (YamlNode item : items(name, limit)) {
      if (text(item, "an entry of '" + name + "'", faults).isPresent()) {
        texts.add((YamlNode.Scalar) item);
      }
    }
    return texts;
  }

  /// A text, or a list of them.
  List<YamlNode.Scalar> textOrTexts(String name, int limit) {
    if (values.get(name) instanceof YamlNode.Scalar scalar) {
      if (text(scalar, "'" + name + "'", faults).isPresent()) {
        return List.of(scalar);
      }
      return List.of();
    }
    return texts(name, limit);
  }

  private static Optional<String> text(YamlNode node, String name, Faults faults) {
    if (!(node instanceof YamlNode.Scalar scalar)) {
      wrongType(faults, node, name, "a string");
      return Optional.empty();
    }
    if (scalar.isNull() || scalar.isBoolean() || scalar.isNumber()) {
      faults.add(
          node,
          "wrong-type",
          name
              + " must be a string, not "
              + scalar.kind()
              + "; write it in quotes: \""
              + scalar.text()
              + "\"");
      return Optional.empty();
    }
    if (scalar.text().length() > MAX_TEXT_LENGTH) {
      faults.add(node, "bad-value", name + " is longer than " + MAX_TEXT_LENGTH + " characters");
      return Optional.empty();
    }
    return Optional.of(scalar.text());
  }

  private static void wrongType(Faults faults, YamlNode node, String name, String expected) {
    faults.add(node, "wrong-type", name + " must be " + expected + ", not " + node.kind());
  }
}
