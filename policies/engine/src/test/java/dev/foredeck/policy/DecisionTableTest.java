package dev.foredeck.policy;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import dev.foredeck.policy.PolicyException.Fault;
import java.util.List;
import org.junit.jupiter.api.Test;

class DecisionTableTest {
  private static final Policy POLICY =
      Policies.compile(
          """
          egress: [{id: web, hosts: [pypi.org]}]
          rules:
          - {id: all, effect: allow, action: process.start}
          - {id: no-rm, effect: deny, action: process.start, argv: [rm], reason: Ask first}
          """);

  private static List<String> failures(String table) {
    return DecisionTable.read("t.yaml", table).run(POLICY).stream()
        .map(DecisionTable.Failure::toString)
        .toList();
  }

  @Test
  void passesWhereThePolicyDoesWhatItSays() {
    assertThat(
            failures(
                """
                policy: test
                cases:
                - name: a
                  call: {action: process.start, argv: [ls]}
                  expect: {effect: allow, rules: [all]}
                - name: b
                  call: {action: process.start, argv: [rm]}
                  expect: {effect: deny, reason: Ask}
                - name: c
                  call: {action: egress.connect, host: pypi.org, port: 80, method: GET, path: /}
                  expect: {effect: allow}
                admits: [pypi.org]
                refuses: [npmjs.org]
                """))
        .isEmpty();
  }

  @Test
  void namesWhatFailedAndWhere() {
    assertThat(
            failures(
                """
                policy: test
                cases:
                - name: a
                  call: {action: process.start, argv: [rm]}
                  expect: {effect: allow}
                - name: b
                  call: {action: process.start, argv: [ls]}
                  expect: {effect: allow, rules: [no-rm]}
                - name: c
                  call: {action: process.start, argv: [rm]}
                  expect: {effect: deny, rules: [no-rm], reason: Never}
                admits: [npmjs.org]
                refuses: [pypi.org]
                uncovered: [{rule: all, reason: x}, {rule: al, reason: x}]
                """))
        .containsExactly(
            "t.yaml:3: 'a': expected allow, was deny by [no-rm] (Ask first)",
            "t.yaml:6: 'b': expected allow by [no-rm], was allow by [all] (rule 'all' of policy"
                + " 'test' allows this process.start)",
            "t.yaml:9: 'c': the reason does not contain 'Never': Ask first",
            "t.yaml:12: npmjs.org is not admitted",
            "t.yaml:13: pypi.org is admitted",
            "t.yaml:14: rule 'all' is covered; take it out of 'uncovered'",
            "t.yaml:14: policy 'test' has no rule 'al'; did you mean 'all'?",
            "t.yaml:1: no case is decided by rule 'web'; add one, or list it under 'uncovered'"
                + " with a reason");
  }

  @Test
  void excusesRulesThatItListsWithAReason() {
    assertThat(
            failures(
                """
                policy: test
                cases: []
                uncovered:
                - {rule: web, reason: a}
                - {rule: all, reason: b}
                - {rule: no-rm, reason: c}
                """))
        .isEmpty();
  }

  @Test
  void collectsItsOwnFaults() {
    PolicyException broken =
        catchThrowableOfType(
            PolicyException.class,
            () ->
                DecisionTable.read(
                    "t.yaml",
                    """
                    cases:
                    - {name: a, call: {action: process.stat}, expect: {effect: allow}}
                    - {name: b, call: {action: file.read, pth: x}, expect: {effect: yes}}
                    - {name: c, call: {}, expect: {efect: allow}}
                    - {name: d, call: {action: egress.connect, host: a, port: 0}, expect: {effect: ask}}
                    uncovered: [{rule: a}]
                    """));
    assertThat(broken.faults())
        .extracting(Fault::message)
        .contains(
            "a decision table needs 'policy'",
            "unknown action 'process.stat'; did you mean 'process.start'?",
            "unknown field 'pth' in a call of file.read; did you mean 'path'?",
            "'yes' is no effect: 'allow', 'ask' or 'deny'",
            "'call' needs 'action', as process.start",
            "unknown field 'efect' in 'expect'; did you mean 'effect'?",
            "'port' is between 1 and 65535",
            "an entry of 'uncovered' needs 'reason'");
  }
}
