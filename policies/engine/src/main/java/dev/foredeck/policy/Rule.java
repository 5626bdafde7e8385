package dev.foredeck.policy;

import dev.cel.runtime.CelEvaluationException;
import dev.foredeck.policy.ActionName.Family;
import dev.foredeck.policy.Conditions.Condition;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// A compiled rule. Everything it says must match; what it leaves out matches everything.
///
/// @param argv for `process.start`
/// @param paths for `file.*`; empty for every path
/// @param languages for `code.run`; empty for every language
/// @param hosts for `egress.connect`; empty for every host
/// @param conditions by family; empty for none
/// @param reason the author's, or empty
record Rule(
    String id,
    Effect effect,
    Set<ActionName> actions,
    Optional<ArgvPattern> argv,
    List<PathGlob> paths,
    Set<String> languages,
    List<HostPattern> hosts,
    Map<Family, Condition> conditions,
    String reason) {

  /// Whether the rule says something about the action.
  ///
  /// @throws CelEvaluationException where its condition has no answer
  boolean matches(Action action, Family family, Facts facts) throws CelEvaluationException {
    if (!matchesPlainly(action)) {
      return false;
    }
    if (conditions.isEmpty()) {
      return true;
    }
    @Nullable Condition condition = conditions.get(family);
    if (condition == null) {
      throw new IllegalStateException("rule " + id + " has no condition for " + family);
    }
    return condition.holds(facts);
  }

  private boolean matchesPlainly(Action action) {
    return switch (action) {
      case Action.ProcessStart process -> argv.isEmpty() || argv.get().matches(process.argv());
      case Action.ProcessSignal _ -> true;
      case Action.CodeRun code -> languages.isEmpty() || languages.contains(code.language());
      case Action.FileAccess file -> matchesPaths(file);
      case Action.EgressConnect egress -> matchesHosts(egress.host(), egress.port());
    };
  }

  /// Of a move, a rule that allows must match both ends, one that denies either.
  private boolean matchesPaths(Action.FileAccess file) {
    if (paths.isEmpty()) {
      return true;
    }
    boolean path = matchesPath(file.path());
    if (file.target().isEmpty()) {
      return path;
    }
    boolean target = matchesPath(file.target());
    return effect == Effect.ALLOW ? path && target : path || target;
  }

  private boolean matchesPath(String path) {
    for (int i = 0; i < paths.size(); i++) {
      if (paths.get(i).matches(path)) {
        return true;
      }
    }
    return false;
  }

  private boolean matchesHosts(String host, int port) {
    if (hosts.isEmpty()) {
      return true;
    }
    for (int i = 0; i < hosts.size(); i++) {
      if (hosts.get(i).matches(host, port)) {
        return true;
      }
    }
    return false;
  }
}
