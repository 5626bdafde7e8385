package dev.foredeck.policy;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import dev.foredeck.policy.PolicyException.Fault;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class PolicyCompilerTest {

  private static List<Fault> faultsOf(String source) {
    PolicyException broken =
        catchThrowableOfType(
            PolicyException.class,
            () -> new PolicyCompiler(_ -> Optional.empty()).compile("p.yaml", source));
    assertThat(broken).as("a policy with faults").isNotNull();
    return broken.faults();
  }

  /// The single fault of a body that follows three lines of head.
  private static Fault faultOf(String body) {
    List<Fault> faults = faultsOf(Policies.HEAD + body);
    assertThat(faults).hasSize(1);
    return faults.getFirst();
  }

  private static void assertFault(
      String body, int line, int column, String code, String... messages) {
    Fault fault = faultOf(body);
    assertThat(fault.message()).contains(messages);
    assertThat(fault.code()).isEqualTo(code);
    assertThat(List.of(fault.line(), fault.column())).isEqualTo(List.of(line, column));
    assertThat(fault.file()).isEqualTo("p.yaml");
  }

  @Test
  void compilesTheSmallestPolicyWhichAllowsNothing() {
    Policy policy = Policies.compile("");
    assertThat(policy.name()).isEqualTo("test");
    assertThat(policy.version()).matches("[0-9a-f]{12}");
    assertThat(policy.reference()).isEqualTo("test@" + policy.version());
    assertThat(policy.shadow()).isFalse();
    assertThat(policy.boundary()).isEqualTo(Boundary.NONE);
    assertThat(policy.maxResultBytes()).isEmpty();
    assertThat(policy.decide(Policies.start("ls")))
        .isEqualTo(
            new Decision(
                Effect.DENY,
                List.of(),
                policy.reference(),
                "policy 'test' has no rule that allows starting 'ls'"));
  }

  @Test
  void readsTheBoundaryAndTheLimitOfResults() {
    Policy policy =
        Policies.compile(
            """
            mode: shadow
            boundary:
              files: {readOnly: [/usr], readWrite: [/workspace]}
              limits: {memory: 2Gi, disk: 512MiB, cpu: 500m, pids: 256, lifetime: 1h30m}
              isolation: strong
            results: [{id: a, maxBytes: 1MiB}, {id: b, maxBytes: 2000}]
            """);
    assertThat(policy.shadow()).isTrue();
    assertThat(policy.maxResultBytes()).hasValue(2000);
    assertThat(policy.boundary())
        .isEqualTo(
            new Boundary(
                List.of("/usr"),
                List.of("/workspace"),
                OptionalLong.of(2L << 30),
                OptionalLong.of(512L << 20),
                OptionalInt.of(500),
                OptionalInt.of(256),
                Optional.of(Duration.ofMinutes(90)),
                Isolation.STRONG));
  }

  @Test
  void collectsEveryFaultInTheOrderOfTheFile() {
    List<Fault> faults =
        faultsOf(
            """
            apiVersion: foredeck/v2
            kind: SandboxPolice
            metadata: {nam: x}
            mode: shadwo
            egres: []
            boundary:
              limits: {memory: 2Gib, pids: many, lifetime: 15 minutes, cpu: 0, disk: -1}
            egress:
            - {id: a, hosts: ["https://pypi.org"]}
            rules:
            - {id: a, effect: permit, action: process.strat}
            - {id: b, effect: deny, action: process.start, when: process.agrv.size() > 1}
            - {effect: deny, action: code.run}
            """);
    assertThat(faults)
        .extracting(Fault::toString)
        .containsExactly(
            "p.yaml:1:13: bad-value: unknown apiVersion 'foredeck/v2'; it must be 'foredeck/v1'",
            "p.yaml:2:7: bad-value: unknown kind 'SandboxPolice'; it must be 'SandboxPolicy'",
            "p.yaml:3:11: missing-field: 'metadata' needs 'name'",
            "p.yaml:3:12: unknown-field: unknown field 'nam' in 'metadata'; did you mean 'name'?",
            "p.yaml:4:7: bad-value: 'shadwo' is no mode: 'enforce' or 'shadow'; did you mean"
                + " 'shadow'?",
            "p.yaml:5:1: unknown-field: unknown field 'egres' in a policy; did you mean 'egress'?",
            "p.yaml:7:20: bad-value: '2Gib' is not a size above 0 as '2Gi' or '512MiB' ('memory')",
            "p.yaml:7:32: bad-value: 'many' is not a whole number between 1 and 4194304 ('pids')",
            "p.yaml:7:48: bad-value: '15 minutes' is not a duration as '90s', '15m' or '2h'"
                + " ('lifetime')",
            "p.yaml:7:65: bad-value: '0' is not a number of cores as '2', '0.5' or '500m' ('cpu')",
            "p.yaml:7:74: bad-value: '-1' is not a size above 0 as '2Gi' or '512MiB' ('disk')",
            "p.yaml:9:19: bad-value: a host has no scheme: leave out 'https://'",
            "p.yaml:11:8: duplicate-id: the id 'a' is already used on line 9",
            "p.yaml:11:19: bad-value: 'permit' is no effect: 'allow' or 'deny'",
            "p.yaml:11:35: bad-value: unknown action 'process.strat'; did you mean"
                + " 'process.start'?",
            "p.yaml:12:54: cel: unknown name 'process.agrv' in a condition of process.start; did"
                + " you mean 'process.argv'?",
            "p.yaml:13:3: missing-field: a rule needs 'id'");
  }

  @Test
  void namesWrongTypes() {
    assertFault("rules: yes\n", 4, 8, "wrong-type", "'rules' must be a list, not a string");
    assertFault("rules: {}\n", 4, 8, "wrong-type", "not a mapping");
    assertFault("rules: [x]\n", 4, 9, "wrong-type", "a rule must be a mapping, not a string");
    assertFault("mode: true\n", 4, 7, "wrong-type", "not a boolean", "\"true\"");
    assertFault("mode: [a]\n", 4, 7, "wrong-type", "not a list");
    assertFault("mode:\n", 4, 6, "wrong-type", "not nothing");
    assertFault("boundary: 1\n", 4, 11, "wrong-type", "not a number");
    assertFault(
        "boundary: {limits: {pids: [1]}}\n", 4, 27, "wrong-type", "'pids' must be a quantity");
    assertFault(
        "rules: [{id: a, effect: deny, action: process.start, argv: [git, 1]}]\n",
        4,
        66,
        "wrong-type",
        "write it in quotes: \"1\"");
  }

  @Test
  void refusesWhatDoesNotExistYet() {
    for (String field : List.of("budgets: {calls: 1}", "approval: {}", "secrets: []")) {
      assertFault(field + "\n", 4, 1, "not-supported", "is not supported yet");
    }
    assertFault("egress: [{id: a, hosts: [b.org], http: []}]\n", 4, 34, "not-supported", "'http'");
    assertFault(
        "egress: [{id: a, hosts: [b.org], secrets: []}]\n", 4, 34, "not-supported", "'secrets'");
    assertFault("rules: [{id: a, effect: ask, action: '*'}]\n", 4, 25, "not-supported", "'ask'");
    assertFault(
        "egress: [{id: a, hosts: [b.org], effect: ask}]\n", 4, 42, "not-supported", "'ask'");
    assertFault(
        "rules: [{id: a, effect: deny, action: mcp.call}]\n", 4, 39, "not-supported", "mcp.call");
    assertThat(faultsOf(Policies.HEAD + "results: [{id: a, match: secret, effect: redact}]\n"))
        .extracting(Fault::code)
        .containsExactly("not-supported", "not-supported");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "rules: [{id: a, effect: deny, action: code.run, argv: [ls]}]",
        "rules: [{id: a, effect: deny, action: '*', args: {any: [x]}}]",
        "rules: [{id: a, effect: deny, action: process.start, argv: []}]",
        "rules: [{id: a, effect: deny, action: process.start, argv: [git push]}]",
        "rules: [{id: a, effect: deny, action: process.start, argv: [ls, '&&', x]}]",
        "rules: [{id: a, effect: deny, action: process.start, args: {any: []}}]",
        "rules: [{id: a, effect: deny, action: process.start, paths: [x]}]",
        "rules: [{id: a, effect: deny, action: file.read, paths: []}]",
        "rules: [{id: a, effect: deny, action: file.read, paths: [../x]}]",
        "rules: [{id: a, effect: deny, action: file.read, paths: [a**b]}]",
        "rules: [{id: a, effect: deny, action: file.read, paths: [a//b]}]",
        "rules: [{id: a, effect: deny, action: file.read, paths: [/workspace/x]}]",
        "rules: [{id: a, effect: deny, action: file.read, languages: [python]}]",
        "rules: [{id: a, effect: deny, action: code.run, languages: [pyton]}]",
        "rules: [{id: a, effect: deny, action: []}]",
        "rules: [{id: a, effect: allow, action: egress.connect}]",
        "rules: [{id: A b, effect: deny, action: '*'}]",
        "egress: [{id: a, hosts: []}]",
        "egress: [{id: a, hosts: [127.0.1]}]",
        "results: [{id: a, maxBytes: 0}]",
        "results: [{id: a, maxBytes: 9999Ti}]",
        "boundary: {files: {readOnly: [usr]}}",
        "boundary: {files: {readOnly: [/usr/]}}",
        "boundary: {files: {readOnly: [/usr/../etc]}}",
        "boundary: {files: {readOnly: [/usr], readWrite: [/usr]}}",
        "extends: nothing-there",
        "extends: [test]",
      })
  void refusesBadValues(String body) {
    Fault fault = faultOf(body + "\n");
    assertThat(fault.code()).isEqualTo("bad-value");
    assertThat(fault.line()).isEqualTo(4);
    assertThat(fault.column()).isGreaterThan(9);
  }

  @Test
  void saysWhatAnUnknownActionMightBe() {
    assertFault(
        "rules: [{id: a, effect: deny, action: frobnicate}]\n",
        4,
        39,
        "bad-value",
        "the actions are process.start, ",
        "file.*");
  }

  @Test
  void refusesKeysThatStandTwice() {
    assertFault("rules: []\nrules: []\n", 5, 1, "yaml", "'rules' stands twice", "line 4");
    assertFault(
        "rules: [{id: a, effect: deny, effect: allow, action: '*'}]\n", 4, 31, "yaml", "twice");
  }

  @Test
  void reportsBrokenYamlWhereItIs() {
    assertThat(faultsOf("apiVersion: [\nkind: x\n"))
        .singleElement()
        .satisfies(fault -> {
          assertThat(fault.code()).isEqualTo("yaml");
          assertThat(fault.line()).isEqualTo(3);
        });
    assertThat(faultsOf("")).extracting(Fault::message).containsExactly("the document is empty");
    assertThat(faultsOf("- a\n")).extracting(Fault::code).containsExactly("wrong-type");
    assertThat(faultsOf("\t- a")).extracting(Fault::code).containsExactly("yaml");
    assertThat(faultsOf("a: \u0001")).extracting(Fault::code).containsExactly("yaml");
    assertThat(faultsOf("a: 1\n---\nb: 2\n"))
        .extracting(Fault::message)
        .containsExactly("a file holds one document; remove what follows '---'");
  }

  @Test
  void boundsTheDocument() {
    assertThat(faultsOf("#" + "x".repeat(YamlReader.MAX_SOURCE_LENGTH)).getFirst().message())
        .contains("the limit is");
    assertThat(faultsOf("a: " + "[".repeat(5_000)).getFirst().message()).contains("nested deeper");
    assertThat(faultsOf("a: [" + "1,".repeat(YamlReader.MAX_NODES) + "1]").getFirst().message())
        .contains("more than " + YamlReader.MAX_NODES);
    assertThat(faultsOf("a: &x 1\nb: *x\n").getFirst().message()).contains("anchors are not");
    assertThat(faultsOf("b: *x\n").getFirst().message()).contains("aliases are not");
    assertThat(faultsOf("b: !!java/object x\n").getFirst().message()).contains("tags are not");
    assertThat(faultsOf("? [a]\n: b\n").getFirst().message()).contains("plain word");
    StringBuilder many = new StringBuilder();
    for (int i = 0; i < 1_000; i++) {
      many.append("x").append(i).append(": 1\n");
    }
    assertThat(faultsOf(many.toString())).hasSize(Faults.MAX_FAULTS);
  }

  @Test
  void boundsTheRules() {
    StringBuilder many = new StringBuilder("rules:\n");
    for (int i = 0; i <= RuleReader.MAX_RULES; i++) {
      many.append("- {id: r").append(i).append(", effect: deny, action: '*'}\n");
    }
    assertThat(faultOf(many.toString()).message()).contains("501 entries; the limit is 500");
  }

  @Test
  void placesConditionFaultsInTheFile() {
    String rule = "rules:\n- {id: a, effect: deny, action: %s, when: %s}\n";
    assertFault(
        rule.formatted("file.read", "'file.pth == \"x\"'"),
        5,
        51,
        "cel",
        "unknown name 'file.pth'",
        "'file.path'");
    assertFault(
        rule.formatted("file.read", "\"process.argv == ['x']\""),
        5,
        51,
        "cel",
        "unknown name 'process.argv' in a condition of file.*",
        "it has file.path, file.target, file.size");
    assertFault(rule.formatted("process.start", "process.cwd"), 5, 54, "cel", "is string");
    assertFault(rule.formatted("process.start", "process.cwd == 1"), 5, 66, "cel", "overload");
    assertFault(
        rule.formatted("process.start", "\"process.cwd.matches('[')\""), 5, 75, "cel", "Regex");
    assertFault(rule.formatted("process.start", "'true &&'"), 5, 62, "cel", "mismatched");
    assertThat(
            faultsOf(
                Policies.HEAD
                    + rule.formatted("process.start", "\"process.argv.exist(a, a == 'x')\"")))
        .first()
        .hasToString("p.yaml:5:73: cel: unknown function 'exist'; did you mean 'exists'?");
  }

  @Test
  void placesFaultsOfABlockOnItsLines() {
    assertFault(
        """
        rules:
        - id: a
          effect: deny
          action: process.start
          when: |
            process.stdin &&
            process.backgroud
        """,
        10,
        1,
        "cel",
        "'process.background'");
  }

  @Test
  void compilesAConditionForEveryFamilyOfItsActions() {
    assertFault(
        "rules: [{id: a, effect: deny, action: [process.start, file.read], when: process.stdin}]\n",
        4,
        73,
        "cel",
        "condition of file.*");
    Policies.compile(
        "rules: [{id: a, effect: allow, action: [process.start, code.run], when:"
            + " \"process.cwd.startsWith('/workspace')\"}]\n");
  }

  @Test
  void boundsConditions() {
    assertThat(
            faultOf(
                    "rules: [{id: a, effect: deny, action: process.start, when: \""
                        + "true && ".repeat(600)
                        + "true\"}]\n")
                .code())
        .isEqualTo("cel");
    assertThat(
            faultOf(
                    "rules: [{id: a, effect: deny, action: process.start, when: \""
                        + "(".repeat(200)
                        + "true"
                        + ")".repeat(200)
                        + "\"}]\n")
                .code())
        .isEqualTo("cel");
  }

  @Test
  void changesItsVersionWithItsSourceOnly() {
    String rule = "rules: [{id: a, effect: deny, action: '*'}]\n";
    String version = Policies.compile(rule).version();
    assertThat(Policies.compile(rule.replace("\n", "  \r\n")).version()).isEqualTo(version);
    assertThat(Policies.compile(rule + "\n\n").version()).isEqualTo(version);
    assertThat(Policies.compile(rule.replace("id: a", "id: b")).version()).isNotEqualTo(version);
  }

  @Test
  void declaresEveryVariableThatActionsHave() {
    List<Action> actions =
        List.of(
            Policies.start("ls"),
            new Action.ProcessSignal("TERM"),
            new Action.CodeRun("python", "1", "/workspace"),
            Policies.file("file.read", "a"),
            Policies.connect("a.org", 443));
    for (Action action : actions) {
      ActionName name = ActionName.find(action.name()).orElseThrow();
      for (String field : Conditions.fields(name.family())) {
        assertThat(new Facts(action, true).find(field)).as(field).isPresent();
      }
      assertThat(new Facts(action, true).find("no.such")).isEmpty();
    }
  }
}
