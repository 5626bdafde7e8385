package dev.foredeck.policy;

import dev.cel.runtime.CelEvaluationException;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;

/// A compiled policy: its own layer first, then those of what it extends. Immutable; `decide` keeps
/// its state on the stack.
final class LayeredPolicy implements Policy {
  private static final int MAX_HOSTS_IN_REASON = 12;
  private static final int MAX_SUBJECT_LENGTH = 120;

  private final boolean shadow;
  private final Boundary boundary;
  private final OptionalLong maxResultBytes;
  private final List<Layer> layers;
  private final Layer own;
  private final String reference;

  LayeredPolicy(
      boolean shadow, Boundary boundary, OptionalLong maxResultBytes, List<Layer> layers) {
    this.shadow = shadow;
    this.boundary = boundary;
    this.maxResultBytes = maxResultBytes;
    this.layers = List.copyOf(layers);
    this.own = this.layers.getFirst();
    this.reference = own.name() + "@" + own.version();
  }

  @Override
  public String name() {
    return own.name();
  }

  @Override
  public String version() {
    return own.version();
  }

  @Override
  public String reference() {
    return reference;
  }

  @Override
  public boolean shadow() {
    return shadow;
  }

  @Override
  public Boundary boundary() {
    return boundary;
  }

  @Override
  public OptionalLong maxResultBytes() {
    return maxResultBytes;
  }

  List<Layer> layers() {
    return layers;
  }

  @Override
  public List<String> ruleIds() {
    List<String> ids = new ArrayList<>();
    for (Layer layer : layers) {
      for (Rule rule : layer.rules()) {
        ids.add(id(layer, rule));
      }
    }
    return List.copyOf(ids);
  }

  @Override
  public boolean admits(HostPattern pattern) {
    for (Layer layer : layers) {
      if (!layer.admits(pattern)) {
        return false;
      }
    }
    return true;
  }

  @Override
  public Decision decide(Action action) {
    Optional<ActionName> name = ActionName.find(action.name());
    if (name.isEmpty()) {
      return new Decision(
          Effect.DENY,
          List.of(),
          reference,
          "policy '" + name() + "' knows no action '" + clipped(action.name()) + "'");
    }
    Verdict verdict = new Verdict();
    if (action instanceof Action.ProcessStart start) {
      CommandLine line = CommandLine.of(start);
      ask(start, line.certain(), ActionName.PROCESS_START, "", verdict);
      for (CommandLine.Command command : line.commands()) {
        Action.ProcessStart inner =
            new Action.ProcessStart(
                command.argv(), command.cwd(), start.env(), start.stdin(), start.background());
        ask(inner, command.certain(), ActionName.PROCESS_START, inShellLine(command), verdict);
      }
    } else {
      ask(action, true, name.get(), "", verdict);
    }
    return verdict.decision(reference);
  }

  private static String inShellLine(CommandLine.Command command) {
    return " (the command '" + clipped(String.join(" ", command.argv())) + "' in the shell line)";
  }

  /// Asks every layer about one action.
  private void ask(Action action, boolean certain, ActionName name, String where, Verdict verdict) {
    Facts facts = new Facts(action, certain);
    for (int i = 0; i < layers.size(); i++) {
      Layer layer = layers.get(i);
      List<Rule> rules = layer.rulesFor(name);
      boolean matched = false;
      for (int j = 0; j < rules.size(); j++) {
        Rule rule = rules.get(j);
        try {
          if (rule.matches(action, name.family(), facts)) {
            matched = true;
            verdict.rule(layer, rule, where, name);
          }
        } catch (CelEvaluationException | RuntimeException broken) {
          matched = true;
          verdict.broken(layer, rule, where, broken);
        }
      }
      if (!matched && layer.closed().contains(name)) {
        verdict.denyByDefault(defaultReason(layer, action) + where);
      }
    }
  }

  /// Collects what the rules say and keeps the strictest. Rules of other effects are forgotten.
  private final class Verdict {
    private Effect effect = Effect.ALLOW;
    private final Set<String> ids = new LinkedHashSet<>(4);
    private String reason = "";
    private String defaultReason = "";

    void rule(Layer layer, Rule rule, String where, ActionName name) {
      if (rule.effect().compareTo(effect) > 0) {
        return;
      }
      boolean stricter = rule.effect().compareTo(effect) < 0;
      if (stricter) {
        effect = rule.effect();
        ids.clear();
      }
      if (ids.isEmpty()) {
        reason = reason(layer, rule, name) + where;
      }
      ids.add(id(layer, rule));
    }

    void broken(Layer layer, Rule rule, String where, Exception broken) {
      if (effect != Effect.DENY) {
        effect = Effect.DENY;
        ids.clear();
      }
      if (ids.isEmpty()) {
        reason =
            "the condition of rule '"
                + id(layer, rule)
                + "' could not be evaluated, so the call is denied: "
                + clipped(String.valueOf(broken.getMessage()))
                + where;
      }
      ids.add(id(layer, rule));
    }

    void denyByDefault(String text) {
      if (effect != Effect.DENY) {
        effect = Effect.DENY;
        ids.clear();
      }
      if (defaultReason.isEmpty()) {
        defaultReason = text;
      }
    }

    Decision decision(String reference) {
      if (ids.isEmpty()) {
        // No rule decided. Every root layer is closed, so this is a default deny.
        return new Decision(Effect.DENY, List.of(), reference, defaultReason);
      }
      return new Decision(effect, List.copyOf(ids), reference, reason);
    }
  }

  private String id(Layer layer, Rule rule) {
    return layer.name().equals(own.name()) ? rule.id() : layer.name() + "/" + rule.id();
  }

  private String reason(Layer layer, Rule rule, ActionName name) {
    if (!rule.reason().isEmpty()) {
      return rule.reason();
    }
    return "rule '"
        + id(layer, rule)
        + "' of policy '"
        + layer.name()
        + "' "
        + verb(rule.effect())
        + " this "
        + name.wireName();
  }

  private static String verb(Effect effect) {
    return switch (effect) {
      case DENY -> "denies";
      case ASK -> "asks a person about";
      case ALLOW -> "allows";
    };
  }

  private static String defaultReason(Layer layer, Action action) {
    String policy = "policy '" + layer.name() + "' ";
    return switch (action) {
      case Action.ProcessStart process ->
          policy
              + "has no rule that allows starting '"
              + clipped(String.join(" ", process.argv()))
              + "'";
      case Action.ProcessSignal signal ->
          policy + "has no rule that allows the signal '" + clipped(signal.signal()) + "'";
      case Action.CodeRun code ->
          policy + "has no rule that allows running " + clipped(code.language()) + " code here";
      case Action.FileAccess file ->
          policy + "has no rule that allows " + file.name() + " of '" + clipped(file.path()) + "'";
      case Action.EgressConnect egress ->
          policy
              + "does not allow connections to "
              + clipped(egress.host())
              + ":"
              + egress.port()
              + "; "
              + allowedHosts(layer);
    };
  }

  private static String allowedHosts(Layer layer) {
    StringBuilder hosts = new StringBuilder();
    int count = 0;
    for (Rule rule : layer.rulesFor(ActionName.EGRESS_CONNECT)) {
      if (rule.effect() == Effect.ALLOW) {
        for (HostPattern host : rule.hosts()) {
          if (count < MAX_HOSTS_IN_REASON) {
            hosts.append(count == 0 ? "" : ", ").append(host);
          }
          count++;
        }
      }
    }
    if (count == 0) {
      return "it allows none";
    }
    String more =
        count > MAX_HOSTS_IN_REASON ? " and " + (count - MAX_HOSTS_IN_REASON) + " more" : "";
    return "it allows " + hosts + more;
  }

  @Override
  public List<String> explain(Action action) {
    Optional<ActionName> name = ActionName.find(action.name());
    if (name.isEmpty()) {
      return List.of();
    }
    List<String> lines = new ArrayList<>();
    if (action instanceof Action.ProcessStart start) {
      CommandLine line = CommandLine.of(start);
      explain(start, line.certain(), name.get(), "", lines);
      for (CommandLine.Command command : line.commands()) {
        Action.ProcessStart inner =
            new Action.ProcessStart(
                command.argv(), command.cwd(), start.env(), start.stdin(), start.background());
        explain(inner, command.certain(), name.get(), inShellLine(command), lines);
      }
    } else {
      explain(action, true, name.get(), "", lines);
    }
    return List.copyOf(lines);
  }

  private void explain(
      Action action, boolean certain, ActionName name, String where, List<String> lines) {
    Facts facts = new Facts(action, certain);
    for (Layer layer : layers) {
      for (Rule rule : layer.rulesFor(name)) {
        try {
          if (rule.matches(action, name.family(), facts)) {
            String reason = rule.reason().isEmpty() ? "" : ": " + rule.reason();
            lines.add(rule.effect().wireName() + " " + id(layer, rule) + where + reason);
          }
        } catch (CelEvaluationException | RuntimeException broken) {
          lines.add(
              "deny "
                  + id(layer, rule)
                  + where
                  + ": its condition could not be evaluated: "
                  + clipped(String.valueOf(broken.getMessage())));
        }
      }
    }
  }

  /// Short and printable: what an agent sends must not write the log's lines.
  private static String clipped(String text) {
    StringBuilder out = new StringBuilder();
    for (int i = 0; i < text.length() && i < MAX_SUBJECT_LENGTH; i++) {
      char c = text.charAt(i);
      if (c < ' ' || c == 0x7f) {
        out.append(String.format(Locale.ROOT, "\\u%04x", (int) c));
      } else if (!Character.isSurrogate(c)) {
        out.append(c);
      }
    }
    return text.length() > MAX_SUBJECT_LENGTH ? out + "..." : out.toString();
  }
}
