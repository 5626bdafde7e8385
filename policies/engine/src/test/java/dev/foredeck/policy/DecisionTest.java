package dev.foredeck.policy;

import static dev.foredeck.policy.Policies.compile;
import static dev.foredeck.policy.Policies.connect;
import static dev.foredeck.policy.Policies.file;
import static dev.foredeck.policy.Policies.start;
import static dev.foredeck.policy.Policies.startIn;
import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class DecisionTest {

  private static Policy rules(String... rules) {
    return compile("rules:\n- {" + String.join("}\n- {", rules) + "}\n");
  }

  private static boolean allows(Policy policy, Action action) {
    return policy.decide(action).allowed();
  }

  @Test
  void theStrictestEffectWinsInAnyOrder() {
    List<String> rules =
        new ArrayList<>(
            List.of(
                "id: all, effect: allow, action: process.start",
                "id: git, effect: allow, action: process.start, argv: [git]",
                "id: no-push, effect: deny, action: process.start, argv: [git, push]",
                "id: no-force, effect: deny, action: process.*, when: \"'-f' in process.argv\""
                    .replace("process.*", "process.start")));
    for (int seed = 0; seed < 20; seed++) {
      Collections.shuffle(rules, new Random(seed));
      Policy policy = rules(rules.toArray(String[]::new));
      assertThat(policy.decide(start("git", "push", "-f")).effect()).isEqualTo(Effect.DENY);
      assertThat(policy.decide(start("git", "push", "-f")).rules())
          .containsExactlyInAnyOrder("no-push", "no-force");
      assertThat(policy.decide(start("git", "pull")).rules())
          .containsExactlyInAnyOrder("all", "git");
    }
  }

  @Test
  void givesTheReasonOfTheRule() {
    Policy policy =
        rules(
            "id: a, effect: deny, action: process.start, argv: [rm], reason: Ask first",
            "id: b, effect: deny, action: process.start, argv: [dd]",
            "id: c, effect: allow, action: process.start");
    assertThat(policy.decide(start("rm")).reason()).isEqualTo("Ask first");
    assertThat(policy.decide(start("dd")).reason())
        .isEqualTo("rule 'b' of policy 'test' denies this process.start");
    assertThat(policy.decide(start("ls")).reason())
        .isEqualTo("rule 'c' of policy 'test' allows this process.start");
  }

  @ParameterizedTest
  @CsvSource({
    "git push, git push, true",
    "git push, git push origin, true",
    "git push, /usr/bin/git push, true",
    "git push, ./git push, true",
    "git push, git, false",
    "git push, git pull, false",
    "git push, git -C x push, false",
    "git push, legit push, false",
    "git push, bash git push, false",
    "/usr/bin/git, /usr/bin/git push, true",
    "/usr/bin/git, git push, false",
    "/usr/bin/git, /bin/git push, false",
  })
  void matchesTheFirstWords(String pattern, String argv, boolean matches) {
    Policy policy =
        rules(
            "id: a, effect: allow, action: process.start, argv: ["
                + pattern.replace(" ", ", ")
                + "]");
    assertThat(allows(policy, start(argv.split(" ")))).isEqualTo(matches);
  }

  @ParameterizedTest
  @CsvSource({
    "'any: [--force, -f]', git push --force, true",
    "'any: [--force, -f]', git push origin -f, true",
    "'any: [--force, -f]', git push --force=yes, true",
    "'any: [--force, -f]', git push --force-with-lease, false",
    "'any: [--force, -f]', git push -fu, false",
    "'any: [--force=yes]', git push --force=no, false",
    "'any: [--]', git push --=x, false",
    "'any: [push]', git push, false",
    "'all: [a, b]', git push b a, true",
    "'all: [a, b]', git push b, false",
    "'none: [a, b]', git push c, true",
    "'none: [a, b]', git push c b, false",
    "'any: [x], none: [y]', git push x y, false",
  })
  void matchesWordsOfTheRest(String args, String argv, boolean matches) {
    Policy policy =
        rules(
            "id: a, effect: allow, action: process.start, argv: [git, push], args: {" + args + "}");
    assertThat(allows(policy, start(argv.split(" ")))).isEqualTo(matches);
  }

  @Test
  void matchesWordsOfAnyProgram() {
    Policy policy = rules("id: a, effect: allow, action: process.start, args: {any: [--help]}");
    assertThat(allows(policy, start("x", "--help"))).isTrue();
    assertThat(allows(policy, start("--help"))).isFalse();
    assertThat(allows(policy, start())).isFalse();
  }

  @Test
  void neverMatchesInsideTextThatIsNotCertain() {
    Policy policy =
        rules(
            "id: push, effect: deny, action: process.start, argv: [git, push]",
            "id: all, effect: allow, action: process.start");
    assertThat(allows(policy, start("bash", "-c", "echo git push"))).isTrue();
    assertThat(allows(policy, start("bash", "-c", "git push $X"))).isTrue();
    assertThat(allows(policy, start("python3", "-c", "git push"))).isTrue();
    assertThat(policy.decide(start("bash", "-c", "true; git push x")).rules())
        .containsExactly("push");
    assertThat(policy.decide(start("bash", "-lc", "git push x")).rules()).containsExactly("push");
  }

  @Test
  void allowsAShellLineOnlyWithAllOfItsCommands() {
    Policy policy =
        rules(
            "id: git, effect: allow, action: process.start, argv: [git]",
            "id: lines, effect: allow, action: process.start, argv: [bash, -c], when:"
                + " process.certain");
    assertThat(policy.decide(start("bash", "-c", "git add . && git push")).rules())
        .containsExactly("lines", "git");
    assertThat(policy.decide(start("bash", "-c", "git add . && rm x")).reason())
        .isEqualTo(
            "policy 'test' has no rule that allows starting 'rm x' (the command 'rm x' in the"
                + " shell line)");
    assertThat(allows(policy, start("bash", "-c", "git add $X"))).isFalse();
    assertThat(allows(policy, start("bash", "-c", "git -c alias.x=y x"))).isFalse();
  }

  @Test
  void seesTheTypedFieldsOfEveryFamily() {
    Policy policy =
        rules(
            "id: a, effect: allow, action: process.start, when: \"process.background &&"
                + " process.stdin && process.env.exists(n, n == 'A') && process.argv.size() == 1\"",
            "id: b, effect: allow, action: process.signal, when: \"signal.name in ['TERM',"
                + " 'INT']\"",
            "id: c, effect: allow, action: code.run, languages: [python], when:"
                + " \"!code.text.contains('import os')\"",
            "id: d, effect: allow, action: file.write, when: file.size >= 0 && file.size < 100",
            "id: e, effect: deny, action: egress.connect, when: egress.port != 443");
    assertThat(
            allows(
                policy,
                new Action.ProcessStart(List.of("x"), "/workspace", List.of("A"), true, true)))
        .isTrue();
    assertThat(allows(policy, start("x"))).isFalse();
    assertThat(allows(policy, new Action.ProcessSignal("INT"))).isTrue();
    assertThat(allows(policy, new Action.ProcessSignal("KILL"))).isFalse();
    assertThat(allows(policy, new Action.CodeRun("python", "1", "/"))).isTrue();
    assertThat(allows(policy, new Action.CodeRun("python", "import os", "/"))).isFalse();
    assertThat(allows(policy, new Action.CodeRun("bash", "1", "/"))).isFalse();
    assertThat(allows(policy, new Action.FileAccess("file.write", "a", "", 99))).isTrue();
    assertThat(allows(policy, new Action.FileAccess("file.write", "a", "", -1))).isFalse();
    assertThat(policy.decide(connect("a.org", 80)).rules()).containsExactly("e");
  }

  @Test
  void seesFoldersWithoutTheirDetours() {
    Policy policy =
        rules(
            "id: a, effect: allow, action: [process.start, code.run], when:"
                + " \"process.cwd.startsWith('/workspace/')\"");
    assertThat(allows(policy, startIn("/workspace/a", "ls"))).isTrue();
    assertThat(allows(policy, startIn("/workspace/../etc", "ls"))).isFalse();
    assertThat(allows(policy, startIn("/workspace/a/..", "ls"))).isFalse();
    assertThat(allows(policy, startIn("/workspace//.", "ls"))).isFalse();
    assertThat(allows(policy, new Action.CodeRun("python", "", "/workspace/../x"))).isFalse();
  }

  @Test
  void anEvaluationErrorDenies() {
    Policy policy =
        rules(
            "id: all, effect: allow, action: process.start",
            "id: odd, effect: allow, action: process.start, when: \"process.argv[1] == 'x'\"");
    assertThat(allows(policy, start("a", "b"))).isTrue();
    Decision decision = policy.decide(start("a"));
    assertThat(decision.effect()).isEqualTo(Effect.DENY);
    assertThat(decision.rules()).containsExactly("odd");
    assertThat(decision.reason())
        .startsWith("the condition of rule 'odd' could not be evaluated, so the call is denied:");
    assertThat(policy.explain(start("a"))).first().isEqualTo("allow all");
  }

  @Test
  void aConditionThatRunsTooLongDenies() {
    Policy policy =
        rules(
            "id: slow, effect: allow, action: process.start, when: \"process.argv.all(a,"
                + " process.argv.all(b, process.argv.all(c, a != 'zz')))\"");
    String[] argv = new String[200];
    Arrays.fill(argv, "x");
    Decision decision = policy.decide(start(argv));
    assertThat(decision.effect()).isEqualTo(Effect.DENY);
    assertThat(decision.reason()).contains("could not be evaluated").contains("terat");
  }

  @Test
  void regularExpressionsTakeLinearTime() {
    Policy policy =
        rules("id: a, effect: allow, action: code.run, when: \"code.text.matches('(a+)+$')\"");
    assertThat(allows(policy, new Action.CodeRun("python", "a".repeat(50_000) + "!", "/")))
        .isFalse();
  }

  @Test
  void matchesPathsOfFiles() {
    Policy policy =
        rules(
            "id: all, effect: allow, action: file.*, paths: ['**']",
            "id: secrets, effect: deny, action: file.*, paths: ['**/.env', 'keys/**', '*.pem']");
    assertThat(allows(policy, file("file.read", "a/b"))).isTrue();
    assertThat(allows(policy, file("file.list", ""))).isTrue();
    assertThat(allows(policy, file("file.read", ".env"))).isFalse();
    assertThat(allows(policy, file("file.read", "a/b/.env"))).isFalse();
    assertThat(allows(policy, file("file.read", "a/b/x.env"))).isTrue();
    assertThat(allows(policy, file("file.list", "keys"))).isFalse();
    assertThat(allows(policy, file("file.read", "keys/a/b"))).isFalse();
    assertThat(allows(policy, file("file.read", "a.pem"))).isFalse();
    assertThat(allows(policy, file("file.read", "a/a.pem"))).isTrue();
    assertThat(allows(policy, file("file.read", "/etc/passwd"))).isFalse();
    assertThat(allows(policy, new Action.FileAccess("file.move", "a", ".env", -1))).isFalse();
    assertThat(allows(policy, new Action.FileAccess("file.move", ".env", "a", -1))).isFalse();
  }

  @Test
  void allowsAMoveOnlyWhereBothEndsAreAllowed() {
    Policy policy = rules("id: a, effect: allow, action: file.move, paths: ['src/**']");
    assertThat(allows(policy, new Action.FileAccess("file.move", "src/a", "src/b", -1))).isTrue();
    assertThat(allows(policy, new Action.FileAccess("file.move", "src/a", "b", -1))).isFalse();
    assertThat(allows(policy, new Action.FileAccess("file.move", "a", "src/b", -1))).isFalse();
  }

  @Test
  void aStarIsEveryCallAndNoConnection() {
    Policy policy = rules("id: a, effect: allow, action: '*'");
    assertThat(allows(policy, start("ls"))).isTrue();
    assertThat(allows(policy, new Action.ProcessSignal("TERM"))).isTrue();
    assertThat(allows(policy, file("file.remove", "a"))).isTrue();
    assertThat(allows(policy, connect("pypi.org", 443))).isFalse();
  }

  @Test
  void deniesWhatItDoesNotKnow() {
    Policy policy = rules("id: a, effect: allow, action: '*'");
    assertThat(policy.decide(file("file.chmod", "a")).reason())
        .isEqualTo("policy 'test' knows no action 'file.chmod'");
  }

  @Test
  void decidesOnConnectionsByHostAndPort() {
    Policy policy =
        compile(
            """
            egress:
            - {id: a, hosts: [pypi.org, "*.example.com"]}
            - {id: b, hosts: "internal.example.com:*", effect: deny, reason: Not that one}
            """);
    assertThat(policy.decide(connect("pypi.org", 443)).rules()).containsExactly("a");
    assertThat(policy.decide(connect("x.example.com", 80)).rules()).containsExactly("a");
    assertThat(policy.decide(connect("internal.example.com", 443)))
        .extracting(Decision::effect, Decision::rules, Decision::reason)
        .containsExactly(Effect.DENY, List.of("b"), "Not that one");
    assertThat(policy.decide(connect("example.com", 443)).reason())
        .isEqualTo(
            "policy 'test' does not allow connections to example.com:443; it allows pypi.org,"
                + " *.example.com");
  }

  @Test
  void admitsOnlyPatternsThatNoHostLeaves() {
    Policy policy =
        compile(
            """
            egress:
            - {id: a, hosts: [pypi.org, "*.example.com", "both.org:80", "both.org:443"]}
            - {id: b, hosts: ["x.example.com"], effect: deny}
            """);
    assertThat(policy.admits(HostPattern.parse("pypi.org"))).isTrue();
    assertThat(policy.admits(HostPattern.parse("both.org"))).isTrue();
    assertThat(policy.admits(HostPattern.parse("y.example.com:443"))).isTrue();
    assertThat(policy.admits(HostPattern.parse("*.y.example.com"))).isTrue();
    assertThat(policy.admits(HostPattern.parse("x.example.com"))).isFalse();
    assertThat(policy.admits(HostPattern.parse("*.example.com"))).isFalse();
    assertThat(policy.admits(HostPattern.parse("pypi.org:8080"))).isFalse();
    assertThat(policy.admits(HostPattern.parse("pypi.org:*"))).isFalse();
    assertThat(policy.admits(HostPattern.parse("*"))).isFalse();
    assertThat(compile("").admits(HostPattern.parse("pypi.org"))).isFalse();
  }

  @Test
  void aListOfHostsInAReasonIsBounded() {
    StringBuilder hosts = new StringBuilder("a0.org");
    for (int i = 1; i < 100; i++) {
      hosts.append(", a").append(i).append(".org");
    }
    String reason =
        compile("egress: [{id: a, hosts: [" + hosts + "]}]\n")
            .decide(connect("x.org", 443))
            .reason();
    assertThat(reason).endsWith("a11.org and 88 more");
  }

  @Test
  void explainsEveryRuleThatMatches() {
    Policy policy =
        rules(
            "id: a, effect: allow, action: process.start",
            "id: b, effect: deny, action: process.start, argv: [rm], reason: Ask first",
            "id: c, effect: deny, action: process.start, argv: [dd]");
    assertThat(policy.explain(start("sh", "-c", "ls && rm x")))
        .containsExactly(
            "allow a",
            "allow a (the command 'ls' in the shell line)",
            "allow a (the command 'rm x' in the shell line)",
            "deny b (the command 'rm x' in the shell line): Ask first");
    assertThat(policy.explain(file("file.read", "a"))).isEmpty();
  }

  @Test
  void aReasonHasNoControlCharactersAndABound() {
    String reason = compile("").decide(start("a\nb\u001b[2J", "x".repeat(10_000))).reason();
    assertThat(reason).contains("a\\u000ab\\u001b[2J").hasSizeLessThan(300);
  }

  @Test
  void decidesTheSameOnManyThreads() throws InterruptedException, ExecutionException {
    Policy policy =
        rules(
            "id: even, effect: allow, action: process.start, when: \"int(process.argv[0]) % 2 =="
                + " 0\"");
    try (ExecutorService threads = Executors.newFixedThreadPool(8)) {
      List<Future<Integer>> wrong = new ArrayList<>();
      for (int thread = 0; thread < 8; thread++) {
        int from = thread * 1_000;
        wrong.add(
            threads.submit(() -> {
              int count = 0;
              for (int i = from; i < from + 1_000; i++) {
                if (allows(policy, start(Integer.toString(i))) != (i % 2 == 0)) {
                  count++;
                }
              }
              return count;
            }));
      }
      for (Future<Integer> one : wrong) {
        assertThat(one.get()).isZero();
      }
    }
  }
}
