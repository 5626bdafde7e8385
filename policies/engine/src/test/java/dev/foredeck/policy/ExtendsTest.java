package dev.foredeck.policy;

import static dev.foredeck.policy.Policies.compile;
import static dev.foredeck.policy.Policies.connect;
import static dev.foredeck.policy.Policies.file;
import static dev.foredeck.policy.Policies.named;
import static dev.foredeck.policy.Policies.start;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import dev.foredeck.policy.PolicyException.Fault;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class ExtendsTest {
  private static final String BASE =
      named(
          "base",
          """
          boundary:
            files: {readOnly: [/usr], readWrite: [/workspace, /tmp]}
            limits: {memory: 2Gi, cpu: 2, pids: 256, lifetime: 2h}
          egress: [{id: web, hosts: [pypi.org, "*.example.com", "db.org:5432"]}]
          results: [{id: cap, maxBytes: 1MiB}]
          rules:
          - {id: processes, effect: allow, action: 'process.*'}
          - {id: no-rm, effect: deny, action: process.start, argv: [rm]}
          - {id: files, effect: allow, action: file.*}
          """);

  private static Policy child(String body) {
    return compile("extends: [base]\n" + body, Map.of("base", BASE));
  }

  private static List<Fault> faultsOf(String body, Map<String, String> sources) {
    PolicyException broken =
        catchThrowableOfType(PolicyException.class, () -> compile(body, sources));
    assertThat(broken).as("a policy with faults").isNotNull();
    return broken.faults();
  }

  private static boolean allows(Policy policy, Action action) {
    return policy.decide(action).allowed();
  }

  @Test
  void aChildThatSaysNothingDecidesAsItsParent() {
    Policy policy = child("");
    assertThat(policy.decide(start("ls")).rules()).containsExactly("base/processes");
    assertThat(policy.decide(start("rm")).rules()).containsExactly("base/no-rm");
    assertThat(allows(policy, connect("pypi.org", 443))).isTrue();
    assertThat(policy.admits(HostPattern.parse("pypi.org"))).isTrue();
    assertThat(policy.ruleIds())
        .containsExactly("base/web", "base/processes", "base/no-rm", "base/files");
    assertThat(policy.boundary().memoryBytes()).hasValue(2L << 30);
    assertThat(policy.maxResultBytes()).hasValue(1L << 20);
  }

  @Test
  void aChildThatOnlyDeniesKeepsTheRest() {
    Policy policy =
        child("rules: [{id: no-dd, effect: deny, action: process.start, argv: [dd]}]\n");
    assertThat(policy.decide(start("dd")).rules()).containsExactly("no-dd");
    assertThat(policy.decide(start("rm")).rules()).containsExactly("base/no-rm");
    assertThat(allows(policy, start("ls"))).isTrue();
    assertThat(allows(policy, file("file.read", "a"))).isTrue();
  }

  @Test
  void aChildThatAllowsNarrowsThatActionToWhatItLists() {
    Policy policy =
        child("rules: [{id: git, effect: allow, action: process.start, argv: [git]}]\n");
    assertThat(policy.decide(start("git")).rules())
        .containsExactlyInAnyOrder("git", "base/processes");
    assertThat(policy.decide(start("ls")).reason())
        .isEqualTo("policy 'test' has no rule that allows starting 'ls'");
    assertThat(allows(policy, new Action.ProcessSignal("TERM"))).isTrue();
    assertThat(allows(policy, file("file.read", "a"))).isTrue();
  }

  @Test
  void aChildCannotAllowWhatItsParentDenies() {
    Policy policy =
        child(
            """
            rules:
            - {id: rm, effect: allow, action: process.start, argv: [rm]}
            - {id: code, effect: allow, action: code.run}
            """);
    assertThat(policy.decide(start("rm")).rules()).containsExactly("base/no-rm");
    assertThat(policy.decide(new Action.CodeRun("python", "", "/")).reason())
        .startsWith("policy 'base' has no rule that allows");
  }

  @Test
  void egressMustBeAdmittedByAll() {
    Policy policy = child("egress: [{id: a, hosts: [pypi.org, a.example.com]}]\n");
    assertThat(policy.decide(connect("pypi.org", 443)).rules()).containsExactly("a", "base/web");
    assertThat(allows(policy, connect("b.example.com", 443))).isFalse();
    assertThat(policy.admits(HostPattern.parse("a.example.com"))).isTrue();
    assertThat(policy.admits(HostPattern.parse("b.example.com"))).isFalse();
  }

  @Test
  void aChildWithAnEmptyEgressAllowsNone() {
    Policy policy = child("egress: []\n");
    assertThat(policy.decide(connect("pypi.org", 443)).reason())
        .isEqualTo("policy 'test' does not allow connections to pypi.org:443; it allows none");
    assertThat(policy.admits(HostPattern.parse("pypi.org"))).isFalse();
  }

  @Test
  void aChildThatOnlyDeniesHostsKeepsTheRest() {
    Policy policy = child("egress: [{id: a, hosts: [a.example.com], effect: deny}]\n");
    assertThat(allows(policy, connect("a.example.com", 443))).isFalse();
    assertThat(allows(policy, connect("b.example.com", 443))).isTrue();
    assertThat(policy.admits(HostPattern.parse("a.example.com"))).isFalse();
    assertThat(policy.admits(HostPattern.parse("pypi.org"))).isTrue();
  }

  @Test
  void isolationIsNeverWeakened() {
    String strong = named("base", "boundary: {isolation: strong}");
    assertThat(compile("extends: [base]", Map.of("base", strong)).boundary().isolation())
        .isEqualTo(Isolation.STRONG);
    assertThat(faultsOf("extends: [base]\nboundary: {isolation: standard}", Map.of("base", strong)))
        .singleElement()
        .satisfies(fault -> assertThat(fault.message()).contains("weaker"));
  }

  @Test
  void limitsBecomeTheLeast() {
    Policy policy =
        child(
            """
            boundary:
              files: {readOnly: [/opt], readWrite: [/workspace/app]}
              limits: {memory: 1Gi, disk: 3Gi, pids: 256}
              isolation: strong
            results: [{id: cap, maxBytes: 1KiB}]
            """);
    assertThat(policy.boundary())
        .isEqualTo(
            new Boundary(
                List.of("/usr", "/opt"),
                List.of("/workspace/app"),
                OptionalLong.of(1L << 30),
                OptionalLong.of(3L << 30),
                OptionalInt.of(2_000),
                OptionalInt.of(256),
                Optional.of(Duration.ofHours(2)),
                Isolation.STRONG));
    assertThat(policy.maxResultBytes()).hasValue(1024);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "boundary: {limits: {memory: 3Gi}} | what this policy extends has: 2Gi",
        "boundary: {limits: {cpu: 2001m}} | what this policy extends has: 2000m",
        "boundary: {limits: {pids: 257}} | what this policy extends has: 256",
        "boundary: {limits: {lifetime: 121m}} | what this policy extends has: 7200s",
        "boundary: {isolation: stong} | is not an isolation",
        "boundary: {files: {readWrite: [/opt]}} | is not writable in what this policy extends",
        "boundary: {files: {readWrite: [/]}} | absolute path",
        "boundary: {files: {readWrite: [/workspaces]}} | is not writable",
        "results: [{id: cap, maxBytes: 2MiB}] | what this policy extends has: 1Mi",
        "egress: [{id: a, hosts: [evil.org]}] | policy 'base', which this one extends, does not",
        "egress: [{id: a, hosts: [example.com]}] | does not allow example.com",
        "egress: [{id: a, hosts: ['db.org:5433']}] | does not allow db.org:5433",
        "egress: [{id: a, hosts: ['*']}] | does not allow *",
        "mode: shadow | would stop enforcing 'base'",
      })
  void wideningIsAFault(String body, String message) {
    List<Fault> faults = faultsOf("extends: base\n" + body + "\n", Map.of("base", BASE));
    assertThat(faults).hasSize(1);
    assertThat(faults.getFirst().code()).isIn("widens", "bad-value");
    assertThat(faults.getFirst().message()).contains(message);
    assertThat(faults.getFirst().line()).isEqualTo(5);
  }

  @Test
  void aReadOnlyPathOfAParentStaysReadOnly() {
    String base =
        named(
            "base",
            "boundary: {files: {readOnly: [/workspace/vendor], readWrite: [/workspace]}}\n");
    assertThat(
            faultsOf(
                "extends: base\nboundary: {files: {readWrite: [/workspace/vendor/x]}}\n",
                Map.of("base", base)))
        .extracting(Fault::code)
        .containsExactly("widens");
  }

  @Test
  void aParentWithoutWritablePathsHasTheDriversDefault() {
    Map<String, String> sources = Map.of("base", named("base", ""));
    assertThat(
            compile("extends: base\nboundary: {files: {readWrite: [/tmp/x]}}\n", sources)
                .boundary()
                .readWrite())
        .containsExactly("/tmp/x");
    assertThat(faultsOf("extends: base\nboundary: {files: {readWrite: [/opt]}}\n", sources))
        .extracting(Fault::code)
        .containsExactly("widens");
  }

  @Test
  void twoParentsAllowWhatBothAllow() {
    Map<String, String> sources =
        Map.of(
            "a",
            named(
                "a",
                """
                boundary: {files: {readWrite: [/workspace]}, limits: {memory: 2Gi, pids: 10}}
                egress: [{id: e, hosts: [x.org, y.org]}]
                rules: [{id: r, effect: allow, action: '*'}]
                """),
            "b",
            named(
                "b",
                """
                boundary: {files: {readWrite: [/tmp, /workspace/b]}, limits: {memory: 1Gi}}
                egress: [{id: e, hosts: [y.org, z.org]}]
                rules: [{id: r, effect: allow, action: process.start}]
                """));
    Policy policy = compile("extends: [a, b]\n", sources);
    assertThat(policy.decide(start("ls")).rules()).containsExactly("a/r", "b/r");
    assertThat(allows(policy, file("file.read", "a"))).isFalse();
    assertThat(allows(policy, connect("x.org", 443))).isFalse();
    assertThat(allows(policy, connect("y.org", 443))).isTrue();
    assertThat(policy.boundary().memoryBytes()).hasValue(1L << 30);
    assertThat(policy.boundary().pids()).hasValue(10);
    assertThat(policy.boundary().readWrite()).containsExactly("/workspace/b");
  }

  @Test
  void parentsWithoutACommonWritablePathAreAFault() {
    Map<String, String> sources =
        Map.of(
            "a", named("a", "boundary: {files: {readWrite: [/workspace]}}\n"),
            "b", named("b", "boundary: {files: {readWrite: [/tmp]}}\n"));
    assertThat(faultsOf("extends: [a, b]\n", sources))
        .extracting(Fault::message)
        .containsExactly("the policies that this one extends have no writable path in common");
  }

  @Test
  void shadowMayExtendShadow() {
    Map<String, String> sources = Map.of("base", named("base", "mode: shadow\n"));
    assertThat(compile("extends: base\nmode: shadow\n", sources).shadow()).isTrue();
    assertThat(compile("extends: base\n", sources).shadow()).isFalse();
  }

  @Test
  void aCycleIsAFaultThatNamesItsWay() {
    Map<String, String> sources =
        Map.of("a", named("a", "extends: b\n"), "b", named("b", "extends: [a]\n"));
    assertThat(faultsOf("extends: a\n", sources))
        .extracting(Fault::toString)
        .anyMatch(fault ->
            fault.equals("b:4:11: bad-value: a policy cannot extend itself: test -> a -> b -> a"));
  }

  @Test
  void depthIsBounded() {
    Map<String, String> sources = new HashMap<>();
    for (int i = 0; i < 20; i++) {
      sources.put("p" + i, named("p" + i, "extends: p" + (i + 1) + "\n"));
    }
    assertThat(faultsOf("extends: p0\n", sources))
        .extracting(Fault::message)
        .anyMatch(message -> message.contains("at most 8 deep"));
  }

  @Test
  void aPolicyReachedTwiceIsAskedOnce() {
    Map<String, String> sources =
        Map.of(
            "root", named("root", "rules: [{id: r, effect: allow, action: '*'}]\n"),
            "a", named("a", "extends: root\n"),
            "b", named("b", "extends: root\n"));
    assertThat(compile("extends: [a, b]\n", sources).decide(start("ls")).rules())
        .containsExactly("root/r");
  }

  @Test
  void faultsOfAParentAreReportedInItsFile() {
    List<Fault> faults =
        faultsOf("extends: base\n", Map.of("base", named("base", "mode: shadwo\n")));
    assertThat(faults)
        .extracting(Fault::toString)
        .containsExactly(
            "test.yaml:4:10: bad-value: the policy 'base' has faults of its own",
            "base:4:7: bad-value: 'shadwo' is no mode: 'enforce' or 'shadow'; did you mean"
                + " 'shadow'?");
  }

  @Test
  void aParentMustBeWhoItWasAskedFor() {
    assertThat(faultsOf("extends: base\n", Map.of("base", named("other", ""))))
        .extracting(Fault::message)
        .contains("this policy was asked for as 'base' and says that it is 'other'");
  }

  @Test
  void theVersionChangesWithAParent() {
    String changed = BASE.replace("[rm]", "[rmdir]");
    assertThat(child("").version())
        .isNotEqualTo(compile("extends: [base]\n", Map.of("base", changed)).version())
        .isEqualTo(child("").version());
  }
}
