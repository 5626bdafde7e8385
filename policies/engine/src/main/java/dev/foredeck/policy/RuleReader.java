package dev.foredeck.policy;

import dev.foredeck.policy.ActionName.Family;
import dev.foredeck.policy.Conditions.Condition;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;

/// Reads the rules of one policy: `egress`, `results` and `rules`, whose ids share one space.
final class RuleReader {
  static final int MAX_RULES = 500;
  static final int MAX_HOSTS = 500;
  static final int MAX_WORDS = 64;
  static final int MAX_PATHS = 100;
  static final int MAX_REASON_LENGTH = 500;
  static final int MAX_ID_LENGTH = 64;

  private static final Set<String> LANGUAGES = Set.of("python", "bash", "javascript");
  private static final Set<String> EFFECTS = Set.of("allow", "deny");
  private static final Set<String> SHELL_OPERATORS =
      Set.of("&&", "||", ";", "|", ">", ">>", "<", "&");

  private final Faults faults;
  private final Map<String, Integer> ids = new HashMap<>();

  RuleReader(Faults faults) {
    this.faults = faults;
  }

  private Optional<String> id(Fields fields) {
    Optional<String> id = fields.requiredText("id");
    if (id.isEmpty()) {
      return id;
    }
    YamlNode at = fields.at("id");
    if (!isId(id.get())) {
      faults.add(
          at,
          "bad-value",
          "'"
              + id.get()
              + "' is not an id: at most "
              + MAX_ID_LENGTH
              + " of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit");
      return Optional.empty();
    }
    Integer first = ids.putIfAbsent(id.get(), at.line());
    if (first != null) {
      faults.add(at, "duplicate-id", "the id '" + id.get() + "' is already used on line " + first);
    }
    return id;
  }

  static boolean isId(String text) {
    if (text.isEmpty() || text.length() > MAX_ID_LENGTH) {
      return false;
    }
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      boolean word = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
      if (!word && (i == 0 || (c != '-' && c != '_' && c != '.'))) {
        return false;
      }
    }
    return true;
  }

  private Effect effect(Fields fields, Effect fallback) {
    Optional<String> text = fields.text("effect");
    if (text.isEmpty()) {
      return fallback;
    }
    return switch (text.get()) {
      case "allow" -> Effect.ALLOW;
      case "deny" -> Effect.DENY;
      case "ask" -> {
        faults.add(
            fields.at("effect"),
            "not-supported",
            "the effect 'ask' is not supported yet; write 'deny' or 'allow'");
        yield fallback;
      }
      case String other -> {
        faults.add(
            fields.at("effect"),
            "bad-value",
            "'" + other + "' is no effect: 'allow' or 'deny'" + Nearest.suggestion(other, EFFECTS));
        yield fallback;
      }
    };
  }

  private String reason(Fields fields) {
    String reason = fields.text("reason").orElse("").strip();
    if (reason.length() > MAX_REASON_LENGTH) {
      faults.add(
          fields.at("reason"),
          "bad-value",
          "a reason has at most " + MAX_REASON_LENGTH + " characters");
      return "";
    }
    return reason;
  }

  /// The egress rules, each of which names hosts and nothing else.
  ///
  /// @param parents whose hosts an allowed one must be among
  List<Rule> egress(Fields policy, List<LayeredPolicy> parents) {
    List<Rule> rules = new ArrayList<>();
    for (YamlNode node : policy.items("egress", MAX_RULES)) {
      Fields.of(
              node,
              "an egress rule",
              Set.of("id", "hosts", "reason", "effect"),
              Set.of("http", "secrets"),
              faults)
          .flatMap(fields -> egressRule(fields, parents))
          .ifPresent(rules::add);
    }
    return rules;
  }

  private Optional<Rule> egressRule(Fields fields, List<LayeredPolicy> parents) {
    Optional<String> id = id(fields);
    Effect effect = effect(fields, Effect.ALLOW);
    String reason = reason(fields);
    fields.required("hosts");
    List<YamlNode.Scalar> texts = fields.textOrTexts("hosts", MAX_HOSTS);
    if (fields.isEmptyList("hosts")) {
      faults.add(
          fields.at("hosts"), "bad-value", "'hosts' must name at least one host, as 'pypi.org'");
    }
    List<HostPattern> hosts = new ArrayList<>();
    for (YamlNode.Scalar text : texts) {
      try {
        HostPattern host = HostPattern.parse(text.text());
        hosts.add(host);
        if (effect == Effect.ALLOW) {
          checkNarrows(text, host, parents);
        }
      } catch (IllegalArgumentException wrong) {
        faults.add(text, "bad-value", String.valueOf(wrong.getMessage()));
      }
    }
    if (id.isEmpty() || hosts.isEmpty()) {
      return Optional.empty();
    }
    return Optional.of(
        new Rule(
            id.get(),
            effect,
            EnumSet.of(ActionName.EGRESS_CONNECT),
            Optional.empty(),
            List.of(),
            Set.of(),
            List.copyOf(hosts),
            Map.of(),
            reason));
  }

  private void checkNarrows(YamlNode at, HostPattern host, List<LayeredPolicy> parents) {
    for (LayeredPolicy parent : parents) {
      for (Layer layer : parent.layers()) {
        if (!layer.allows(host)) {
          faults.add(
              at,
              "widens",
              "policy '" + layer.name() + "', which this one extends, does not allow " + host);
          return;
        }
      }
    }
  }

  /// The least `maxBytes` of the results rules, where there is one.
  OptionalLong results(Fields policy, List<LayeredPolicy> parents) {
    OptionalLong least = OptionalLong.empty();
    for (LayeredPolicy parent : parents) {
      OptionalLong inherited = parent.maxResultBytes();
      if (inherited.isPresent() && (least.isEmpty() || inherited.getAsLong() < least.getAsLong())) {
        least = inherited;
      }
    }
    OptionalLong most = least;
    for (YamlNode node : policy.items("results", MAX_RULES)) {
      Optional<Fields> fields =
          Fields.of(
              node, "a results rule", Set.of("id", "maxBytes"), Set.of("match", "effect"), faults);
      if (fields.isEmpty()) {
        continue;
      }
      id(fields.get());
      if (!fields.get().mentions("match") && !fields.get().mentions("effect")) {
        fields.get().required("maxBytes");
      }
      Optional<YamlNode.Scalar> text = fields.get().quantity("maxBytes");
      Optional<Long> bytes = text.map(YamlNode.Scalar::text).flatMap(Quantities::bytes);
      if (text.isPresent() && bytes.isEmpty()) {
        faults.add(
            text.get(),
            "bad-value",
            "'" + text.get().text() + "' is not a size above 0 as '1MiB' ('maxBytes')");
      }
      if (bytes.isPresent() && most.isPresent() && bytes.get() > most.getAsLong()) {
        faults.add(
            fields.get().at("maxBytes"),
            "widens",
            "'maxBytes' is more than what this policy extends has: "
                + Quantities.bytesText(most.getAsLong()));
      } else if (bytes.isPresent() && (least.isEmpty() || bytes.get() < least.getAsLong())) {
        least = OptionalLong.of(bytes.get());
      }
    }
    return least;
  }

  List<Rule> rules(Fields policy) {
    List<Rule> rules = new ArrayList<>();
    for (YamlNode node : policy.items("rules", MAX_RULES)) {
      Fields.of(
              node,
              "a rule",
              Set.of(
                  "id", "effect", "action", "argv", "args", "when", "reason", "paths", "languages"),
              Set.of("approval", "budget"),
              faults)
          .flatMap(this::rule)
          .ifPresent(rules::add);
    }
    return rules;
  }

  private Optional<Rule> rule(Fields fields) {
    Optional<String> id = id(fields);
    fields.required("effect");
    Effect effect = effect(fields, Effect.DENY);
    Set<ActionName> actions = actions(fields, effect);
    String reason = reason(fields);
    Optional<ArgvPattern> argv = argv(fields, actions);
    List<PathGlob> paths = paths(fields, actions);
    Set<String> languages = languages(fields, actions);
    Map<Family, Condition> conditions = conditions(fields, actions);
    if (id.isEmpty() || actions.isEmpty()) {
      return Optional.empty();
    }
    return Optional.of(
        new Rule(id.get(), effect, actions, argv, paths, languages, List.of(), conditions, reason));
  }

  private Set<ActionName> actions(Fields fields, Effect effect) {
    fields.required("action");
    EnumSet<ActionName> actions = EnumSet.noneOf(ActionName.class);
    List<YamlNode.Scalar> texts = fields.textOrTexts("action", ActionName.spellings().size() + 1);
    if (fields.isEmptyList("action")) {
      faults.add(fields.at("action"), "bad-value", "'action' must name at least one action");
    }
    for (YamlNode.Scalar text : texts) {
      Set<ActionName> named = ActionName.named(text.text());
      if (named.isEmpty() && ActionName.LATER.contains(text.text())) {
        faults.add(text, "not-supported", "the action '" + text.text() + "' is not supported yet");
      } else if (named.isEmpty()) {
        String near = Nearest.suggestion(text.text(), ActionName.spellings());
        faults.add(
            text,
            "bad-value",
            "unknown action '"
                + text.text()
                + "'"
                + (near.isEmpty()
                    ? "; the actions are " + String.join(", ", ActionName.spellings()) + " and '*'"
                    : near));
      } else if (named.contains(ActionName.EGRESS_CONNECT) && effect == Effect.ALLOW) {
        faults.add(
            text,
            "bad-value",
            "a rule can deny egress.connect, but hosts are allowed under 'egress'");
      } else {
        actions.addAll(named);
      }
    }
    return actions;
  }

  private Optional<ArgvPattern> argv(Fields fields, Set<ActionName> actions) {
    if (!fields.has("argv") && !fields.has("args")) {
      return Optional.empty();
    }
    for (String name : List.of("argv", "args")) {
      if (fields.has(name)
          && !actions.isEmpty()
          && !actions.equals(EnumSet.of(ActionName.PROCESS_START))) {
        faults.add(
            fields.at(name), "bad-value", "'" + name + "' is for rules of process.start alone");
      }
    }
    List<String> words = words(fields, "argv");
    Optional<Fields> args =
        fields
            .get("args")
            .flatMap(node -> Fields.of(node, "'args'", Set.of("any", "all", "none"), faults));
    if (fields.isEmptyList("argv")) {
      faults.add(
          fields.at("argv"), "bad-value", "'argv' must have at least one word, as [git, push]");
    }
    return Optional.of(
        new ArgvPattern(
            words,
            args.map(given -> words(given, "any")).orElse(List.of()),
            args.map(given -> words(given, "all")).orElse(List.of()),
            args.map(given -> words(given, "none")).orElse(List.of())));
  }

  private List<String> words(Fields fields, String name) {
    List<String> words = new ArrayList<>();
    for (YamlNode.Scalar word : fields.texts(name, MAX_WORDS)) {
      if (word.text().isEmpty() || word.text().indexOf('\0') >= 0) {
        faults.add(word, "bad-value", "a word of '" + name + "' must not be empty or have a NUL");
      } else if (SHELL_OPERATORS.contains(word.text())) {
        faults.add(
            word,
            "bad-value",
            "'"
                + word.text()
                + "' never stands in an argv; each command of a shell line is matched by itself");
      } else if (name.equals("argv") && word.text().indexOf(' ') >= 0) {
        faults.add(
            word,
            "bad-value",
            "'" + word.text() + "' is one word with a blank in it; write one entry for each word");
      } else {
        words.add(word.text());
      }
    }
    if (!name.equals("argv") && fields.isEmptyList(name)) {
      faults.add(fields.at(name), "bad-value", "'" + name + "' must have at least one word");
    }
    return List.copyOf(words);
  }

  private List<PathGlob> paths(Fields fields, Set<ActionName> actions) {
    if (!fields.has("paths")) {
      return List.of();
    }
    for (ActionName action : actions) {
      if (action.family() != Family.FILE) {
        faults.add(
            fields.at("paths"),
            "bad-value",
            "'paths' is for rules of file actions alone, not of " + action.wireName());
        break;
      }
    }
    List<PathGlob> paths = new ArrayList<>();
    List<YamlNode.Scalar> texts = fields.textOrTexts("paths", MAX_PATHS);
    for (YamlNode.Scalar text : texts) {
      if (text.text().equals("/workspace") || text.text().startsWith("/workspace/")) {
        faults.add(
            text,
            "bad-value",
            "paths are relative to the workspace: leave out '/workspace/' of '"
                + text.text()
                + "'");
        continue;
      }
      try {
        paths.add(PathGlob.parse(text.text()));
      } catch (IllegalArgumentException wrong) {
        faults.add(text, "bad-value", String.valueOf(wrong.getMessage()));
      }
    }
    if (fields.isEmptyList("paths")) {
      faults.add(fields.at("paths"), "bad-value", "'paths' must have at least one path");
    }
    return List.copyOf(paths);
  }

  private Set<String> languages(Fields fields, Set<ActionName> actions) {
    if (!fields.has("languages")) {
      return Set.of();
    }
    if (!actions.isEmpty() && !actions.equals(EnumSet.of(ActionName.CODE_RUN))) {
      faults.add(fields.at("languages"), "bad-value", "'languages' is for rules of code.run alone");
    }
    Set<String> languages = new HashSet<>();
    List<YamlNode.Scalar> texts = fields.textOrTexts("languages", LANGUAGES.size());
    for (YamlNode.Scalar text : texts) {
      if (LANGUAGES.contains(text.text())) {
        languages.add(text.text());
      } else {
        faults.add(
            text,
            "bad-value",
            "unknown language '"
                + text.text()
                + "': python, bash or javascript"
                + Nearest.suggestion(text.text(), LANGUAGES));
      }
    }
    if (fields.isEmptyList("languages")) {
      faults.add(fields.at("languages"), "bad-value", "'languages' must name at least one");
    }
    return Set.copyOf(languages);
  }

  /// One condition for each family that the rule's actions are of.
  private Map<Family, Condition> conditions(Fields fields, Set<ActionName> actions) {
    if (fields.text("when").isEmpty()
        || !(fields.get("when").orElse(null) instanceof YamlNode.Scalar when)) {
      return Map.of();
    }
    if (when.text().isBlank() || when.text().length() > Conditions.MAX_LENGTH) {
      faults.add(
          when, "cel", "a condition has between 1 and " + Conditions.MAX_LENGTH + " characters");
      return Map.of();
    }
    Map<Family, Condition> conditions = new EnumMap<>(Family.class);
    for (ActionName action : actions) {
      if (!conditions.containsKey(action.family())) {
        Conditions.compile(action.family(), when, faults)
            .ifPresent(condition -> conditions.put(action.family(), condition));
      }
    }
    return conditions;
  }
}
