package dev.foredeck.policy;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/// A policy's tests as its authors write them (`*.test.yaml`): calls, what the policy must decide on
/// each, and why. Every rule of the policy itself must decide at least one case, or be listed under
/// `uncovered` with a reason.
///
///     policy: default
///     cases:
///     - name: refuses an unlisted host
///       call: {action: egress.connect, host: evil.example, port: 443}
///       expect: {effect: deny, rules: []}
///     admits: [pypi.org]
///     refuses: ["*"]
///     uncovered: [{rule: demo, reason: needs an operator's pin}]
public final class DecisionTable {
  static final int MAX_CASES = 2_000;

  private final String policy;
  private final List<Case> cases;
  private final List<Host> hosts;
  private final List<Uncovered> uncovered;
  private final String file;

  /// What one case found to be wrong.
  ///
  /// @param line of the table, from 1
  public record Failure(String file, int line, String message) {
    @Override
    public String toString() {
      return file + ":" + line + ": " + message;
    }
  }

  /// One call and what must be decided on it.
  ///
  /// @param rules the ids that must decide, in any order; absent where the table does not say
  /// @param reason text that the reason must contain; may be empty
  public record Case(
      String name,
      int line,
      Action action,
      Effect effect,
      Optional<Set<String>> rules,
      String reason) {}

  private record Host(HostPattern pattern, boolean admitted, int line) {}

  private record Uncovered(String rule, int line) {}

  private DecisionTable(
      String file, String policy, List<Case> cases, List<Host> hosts, List<Uncovered> uncovered) {
    this.file = file;
    this.policy = policy;
    this.cases = List.copyOf(cases);
    this.hosts = List.copyOf(hosts);
    this.uncovered = List.copyOf(uncovered);
  }

  /// @param file the name that faults and failures carry
  /// @throws PolicyException with every fault found in the table
  public static DecisionTable read(String file, String source) {
    Faults faults = new Faults(file);
    Optional<DecisionTable> table =
        YamlReader.read(source, faults).flatMap(root -> new Reader(file, faults).read(root));
    if (!faults.none() || table.isEmpty()) {
      throw new PolicyException(faults.inOrder());
    }
    return table.get();
  }

  /// The name of the policy that the table is about.
  public String policy() {
    return policy;
  }

  public List<Case> cases() {
    return cases;
  }

  /// Runs every case.
  ///
  /// @return what failed, in the table's order; empty where the policy does what the table says
  public List<Failure> run(Policy subject) {
    List<Failure> failures = new ArrayList<>();
    Set<String> covered = new HashSet<>();
    for (Case one : cases) {
      Decision decision = subject.decide(one.action());
      covered.addAll(decision.rules());
      check(one, decision, failures);
    }
    for (Host host : hosts) {
      if (subject.admits(host.pattern()) != host.admitted()) {
        failures.add(
            new Failure(
                file,
                host.line(),
                host.pattern() + (host.admitted() ? " is not admitted" : " is admitted")));
      }
    }
    checkCoverage(subject, covered, failures);
    return List.copyOf(failures);
  }

  private void check(Case one, Decision decision, List<Failure> failures) {
    boolean effect = decision.effect() == one.effect();
    boolean rules =
        one.rules().isEmpty() || one.rules().get().equals(new HashSet<>(decision.rules()));
    if (!effect || !rules) {
      failures.add(
          new Failure(
              file,
              one.line(),
              "'"
                  + one.name()
                  + "': expected "
                  + one.effect().wireName()
                  + one.rules().map(ids -> " by " + ids).orElse("")
                  + ", was "
                  + decision.effect().wireName()
                  + " by "
                  + decision.rules()
                  + " ("
                  + decision.reason()
                  + ")"));
    } else if (!decision.reason().contains(one.reason())) {
      failures.add(
          new Failure(
              file,
              one.line(),
              "'"
                  + one.name()
                  + "': the reason does not contain '"
                  + one.reason()
                  + "': "
                  + decision.reason()));
    }
  }

  private void checkCoverage(Policy subject, Set<String> covered, List<Failure> failures) {
    Set<String> ids = new LinkedHashSet<>(subject.ruleIds());
    Set<String> excused = new HashSet<>();
    for (Uncovered one : uncovered) {
      excused.add(one.rule());
      if (!ids.contains(one.rule())) {
        failures.add(
            new Failure(
                file,
                one.line(),
                "policy '"
                    + policy
                    + "' has no rule '"
                    + one.rule()
                    + "'"
                    + Nearest.suggestion(one.rule(), ids)));
      } else if (covered.contains(one.rule())) {
        failures.add(
            new Failure(
                file,
                one.line(),
                "rule '" + one.rule() + "' is covered; take it out of 'uncovered'"));
      }
    }
    for (String id : ids) {
      boolean own = id.indexOf('/') < 0;
      if (own && !covered.contains(id) && !excused.contains(id)) {
        failures.add(
            new Failure(
                file,
                1,
                "no case is decided by rule '"
                    + id
                    + "'; add one, or list it under 'uncovered' with a reason"));
      }
    }
  }

  /// Reads a table with the same places and suggestions as a policy.
  private record Reader(String file, Faults faults) {

    Optional<DecisionTable> read(YamlNode root) {
      Optional<Fields> fields =
          Fields.of(
              root,
              "a decision table",
              Set.of("policy", "cases", "admits", "refuses", "uncovered"),
              faults);
      if (fields.isEmpty()) {
        return Optional.empty();
      }
      Optional<String> policy = fields.get().requiredText("policy");
      fields.get().required("cases");
      List<Case> cases = new ArrayList<>();
      for (YamlNode node : fields.get().items("cases", MAX_CASES)) {
        readCase(node).ifPresent(cases::add);
      }
      List<Host> hosts = new ArrayList<>();
      readHosts(fields.get(), "admits", true, hosts);
      readHosts(fields.get(), "refuses", false, hosts);
      List<Uncovered> uncovered = new ArrayList<>();
      for (YamlNode node : fields.get().items("uncovered", MAX_CASES)) {
        readUncovered(node).ifPresent(uncovered::add);
      }
      return policy.map(name -> new DecisionTable(file, name, cases, hosts, uncovered));
    }

    private void readHosts(Fields table, String field, boolean admitted, List<Host> hosts) {
      for (YamlNode.Scalar text : table.texts(field, MAX_CASES)) {
        try {
          hosts.add(new Host(HostPattern.parse(text.text()), admitted, text.line()));
        } catch (IllegalArgumentException wrong) {
          faults.add(text, "bad-value", String.valueOf(wrong.getMessage()));
        }
      }
    }

    private Optional<Uncovered> readUncovered(YamlNode node) {
      Optional<Fields> fields =
          Fields.of(node, "an entry of 'uncovered'", Set.of("rule", "reason"), faults);
      fields.ifPresent(given -> given.requiredText("reason"));
      return fields
          .flatMap(given -> given.requiredText("rule"))
          .map(rule -> new Uncovered(rule, node.line()));
    }

    private Optional<Case> readCase(YamlNode node) {
      Optional<Fields> fields = Fields.of(node, "a case", Set.of("name", "call", "expect"), faults);
      if (fields.isEmpty()) {
        return Optional.empty();
      }
      Optional<String> name = fields.get().requiredText("name");
      Optional<Action> action = fields.get().required("call").flatMap(this::readCall);
      Optional<Fields> expect =
          fields
              .get()
              .required("expect")
              .flatMap(given ->
                  Fields.of(given, "'expect'", Set.of("effect", "rules", "reason"), faults));
      Optional<Effect> effect = expect.flatMap(this::readEffect);
      Optional<Set<String>> rules = Optional.empty();
      if (expect.isPresent() && expect.get().has("rules")) {
        Set<String> ids = new LinkedHashSet<>();
        for (YamlNode.Scalar id : expect.get().texts("rules", RuleReader.MAX_RULES)) {
          ids.add(id.text());
        }
        rules = Optional.of(ids);
      }
      if (name.isEmpty() || action.isEmpty() || effect.isEmpty()) {
        return Optional.empty();
      }
      return Optional.of(
          new Case(
              name.get(),
              node.line(),
              action.get(),
              effect.get(),
              rules,
              expect.flatMap(given -> given.text("reason")).orElse("")));
    }

    private Optional<Effect> readEffect(Fields expect) {
      Optional<String> text = expect.requiredText("effect");
      if (text.isEmpty()) {
        return Optional.empty();
      }
      for (Effect effect : Effect.values()) {
        if (effect.wireName().equals(text.get())) {
          return Optional.of(effect);
        }
      }
      faults.add(
          expect.at("effect"),
          "bad-value",
          "'" + text.get() + "' is no effect: 'allow', 'ask' or 'deny'");
      return Optional.empty();
    }

    private Optional<Action> readCall(YamlNode node) {
      Optional<YamlNode.Scalar> name = actionName(node);
      if (name.isEmpty()) {
        return Optional.empty();
      }
      Optional<ActionName> action = ActionName.find(name.get().text());
      if (action.isEmpty()) {
        faults.add(
            name.get(),
            "bad-value",
            "unknown action '"
                + name.get().text()
                + "'"
                + Nearest.suggestion(name.get().text(), ActionName.spellings()));
        return Optional.empty();
      }
      Set<String> known =
          switch (action.get().family()) {
            case PROCESS -> Set.of("action", "argv", "cwd", "env", "stdin", "background");
            case SIGNAL -> Set.of("action", "signal");
            case CODE -> Set.of("action", "language", "text", "cwd");
            case FILE -> Set.of("action", "path", "target", "size");
            case EGRESS -> Set.of("action", "host", "port", "method", "path");
          };
      return Fields.of(node, "a call of " + action.get().wireName(), known, faults)
          .flatMap(fields -> readAction(action.get(), fields));
    }

    private Optional<YamlNode.Scalar> actionName(YamlNode node) {
      if (node instanceof YamlNode.Mapping mapping) {
        for (YamlNode.Entry entry : mapping.entries()) {
          if (entry.key().text().equals("action")
              && entry.value() instanceof YamlNode.Scalar scalar) {
            return Optional.of(scalar);
          }
        }
      }
      faults.add(node, "missing-field", "'call' needs 'action', as process.start");
      return Optional.empty();
    }

    private Optional<Action> readAction(ActionName action, Fields fields) {
      return switch (action.family()) {
        case PROCESS ->
            Optional.of(
                new Action.ProcessStart(
                    words(fields, "argv"),
                    fields.text("cwd").orElse("/workspace"),
                    words(fields, "env"),
                    fields.flag("stdin").orElse(false),
                    fields.flag("background").orElse(false)));
        case SIGNAL -> fields.requiredText("signal").map(Action.ProcessSignal::new);
        case CODE ->
            fields
                .requiredText("language")
                .map(language ->
                    new Action.CodeRun(
                        language,
                        fields.text("text").orElse(""),
                        fields.text("cwd").orElse("/workspace")));
        case FILE ->
            fields
                .requiredText("path")
                .map(path ->
                    new Action.FileAccess(
                        action.wireName(), path, fields.text("target").orElse(""), size(fields)));
        case EGRESS ->
            fields
                .requiredText("host")
                .map(host ->
                    new Action.EgressConnect(
                        host,
                        port(fields),
                        fields.text("method").orElse("CONNECT"),
                        fields.text("path").orElse("")));
      };
    }

    private static List<String> words(Fields fields, String name) {
      List<String> words = new ArrayList<>();
      for (YamlNode.Scalar word : fields.texts(name, ShellText.MAX_WORDS)) {
        words.add(word.text());
      }
      return words;
    }

    private int port(Fields fields) {
      Optional<YamlNode.Scalar> given = fields.quantity("port");
      if (given.isEmpty()) {
        return 443;
      }
      return Quantities.count(given.get().text(), 65_535)
          .orElseGet(() -> {
            faults.add(given.get(), "bad-value", "'port' is between 1 and 65535");
            return 443;
          });
    }

    private long size(Fields fields) {
      Optional<YamlNode.Scalar> given = fields.quantity("size");
      if (given.isEmpty()) {
        return -1;
      }
      return Quantities.bytes(given.get().text())
          .orElseGet(() -> {
            faults.add(given.get(), "bad-value", "'size' is a size above 0 as '1MiB'");
            return -1L;
          });
    }
  }
}
