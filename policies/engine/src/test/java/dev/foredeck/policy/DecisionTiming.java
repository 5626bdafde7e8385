package dev.foredeck.policy;

import java.util.Arrays;
import java.util.List;

/// Prints what a decision on 50 rules costs. Not a test: the budget is reported, never asserted.
///
///     java -cp target/classes:target/test-classes:... dev.foredeck.policy.DecisionTiming
final class DecisionTiming {
  private DecisionTiming() {}

  public static void main(String[] arguments) {
    StringBuilder rules = new StringBuilder("rules:\n");
    rules.append("- {id: all, effect: allow, action: process.start}\n");
    for (int i = 0; i < 24; i++) {
      rules
          .append("- {id: a")
          .append(i)
          .append(", effect: deny, action: process.start, argv: [git, x")
          .append(i)
          .append("], args: {any: ['--force']}}\n");
    }
    for (int i = 0; i < 25; i++) {
      rules
          .append("- {id: c")
          .append(i)
          .append(", effect: deny, action: process.start, when: \"!process.cwd.startsWith(")
          .append("'/workspace') || process.argv.exists(a, a == '--x")
          .append(i)
          .append("')\"}\n");
    }
    Policy policy = Policies.compile(rules.toString());
    report("plain", policy, Policies.start("git", "push", "origin", "main"));
    report(
        "shell line",
        policy,
        Policies.start("bash", "-c", "git add . && git commit -m 'x y' && git push"));
  }

  private static void report(String name, Policy policy, Action action) {
    List<String> allowed = policy.decide(action).rules();
    int rounds = 200_000;
    long[] nanos = new long[rounds];
    for (int warm = 0; warm < 2; warm++) {
      for (int i = 0; i < rounds; i++) {
        long start = System.nanoTime();
        Decision decision = policy.decide(action);
        nanos[i] = System.nanoTime() - start;
        if (!decision.rules().equals(allowed)) {
          throw new IllegalStateException(decision.toString());
        }
      }
    }
    Arrays.sort(nanos);
    System.out.printf(
        "%s: n=%d p50=%.1f us p90=%.1f us p99=%.1f us max=%.0f us%n",
        name,
        rounds,
        nanos[rounds / 2] / 1e3,
        nanos[rounds * 9 / 10] / 1e3,
        nanos[rounds * 99 / 100] / 1e3,
        nanos[rounds - 1] / 1e3);
  }
}
