package dev.foredeck.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class MainTest {
  private static final String POLICY =
      """
      apiVersion: foredeck/v1
      kind: SandboxPolicy
      metadata: {name: small}
      extends: [default]
      rules:
      - {id: no-push, effect: deny, action: process.start, argv: [git, push], reason: ask a person}
      """;
  private static final String TABLE =
      """
      policy: small
      cases:
      - name: pushing is denied
        call: {action: process.start, argv: [git, push]}
        expect: {effect: deny, rules: [no-push]}
      """;

  @TempDir private Path folder;
  private final ByteArrayOutputStream out = new ByteArrayOutputStream();
  private final ByteArrayOutputStream err = new ByteArrayOutputStream();

  private int run(String... args) {
    return Main.run(
        new Surroundings(
            Map.of(),
            folder,
            new Terminal(new PrintStream(out, true, StandardCharsets.UTF_8), false),
            new PrintStream(err, true, StandardCharsets.UTF_8)),
        args);
  }

  private String out() {
    return out.toString(StandardCharsets.UTF_8);
  }

  private String err() {
    return err.toString(StandardCharsets.UTF_8);
  }

  private void file(String name, String text) throws IOException {
    Path file = folder.resolve(name);
    Files.createDirectories(file.getParent());
    Files.writeString(file, text);
  }

  @Test
  void runsTheTablesOfAFolder() throws IOException {
    file("p/small.yaml", POLICY);
    file("p/small.test.yaml", TABLE);

    assertThat(run("policy", "test", "p")).as(err()).isZero();
    assertThat(out()).isEqualTo("✓ p/small.test.yaml: 1 cases\n1 tables, all as they should be\n");
  }

  @Test
  void findsPoliciesElsewhereAndAmongThePacks() throws IOException {
    file("policies/small.yaml", POLICY);
    file("tables/deep/small.test.yaml", TABLE);

    assertThat(run("policy", "test", "--policies", "policies", "tables")).as(out()).isZero();
    assertThat(run("policy", "test", "tables")).isEqualTo(ExitCode.NO);
    assertThat(out()).contains("there is no policy 'small'; --policies says where");
  }

  @Test
  void namesTheLineOfACaseThatFails() throws IOException {
    file("small.yaml", POLICY);
    file("small.test.yaml", TABLE.replace("deny, rules: [no-push]", "allow"));

    assertThat(run("policy", "test", "small.test.yaml")).isEqualTo(ExitCode.NO);
    assertThat(out())
        .contains("✗ small.test.yaml: 1 cases")
        .contains("  small.test.yaml:3: 'pushing is denied': expected allow, was deny")
        .contains("1 tables, 1 failed");
  }

  @Test
  void checksAPolicy() throws IOException {
    file("small.yaml", POLICY);

    assertThat(run("policy", "check", "small.yaml")).as(out()).isZero();
    assertThat(out()).containsPattern("small.yaml: small@[0-9a-f]{12}, [0-9]+ rules\n");
  }

  @Test
  void printsEveryFaultOfAPolicyWithItsLine() throws IOException {
    file("small.yaml", POLICY.replace("reason:", "raeson:").replace("kind: S", "kind: X"));

    assertThat(run("policy", "check", "small.yaml")).isEqualTo(ExitCode.NO);
    assertThat(out())
        .contains("small.yaml:2:")
        .contains("small.yaml:6:")
        .contains("unknown-field")
        .contains("raeson");
  }

  @Test
  void saysWhichFileIsNotThere() {
    assertThat(run("policy", "check", "none.yaml")).isEqualTo(ExitCode.CANNOT);
    assertThat(run("policy", "test", "none.test.yaml")).isEqualTo(ExitCode.CANNOT);
    assertThat(run("policy", "test", ".")).isEqualTo(ExitCode.CANNOT);
    assertThat(err())
        .contains("foredeck: there is no file " + folder.resolve("none.yaml"))
        .contains("there is no decision table (*.test.yaml) in .")
        .doesNotContain("\tat ");
  }

  @Test
  void answersAWrongCommandLineWithTwo() {
    assertThat(run("demmo")).isEqualTo(ExitCode.USAGE);
    assertThat(run("policy")).isEqualTo(ExitCode.USAGE);
    assertThat(run("policy", "test")).isEqualTo(ExitCode.USAGE);
    assertThat(run("demo", "--driver", "dokcer")).isEqualTo(ExitCode.USAGE);
    assertThat(run("demo", "--key", "k")).isEqualTo(ExitCode.USAGE);
    assertThat(run("demo", "--url", "http://127.0.0.1:1")).isEqualTo(ExitCode.USAGE);
    assertThat(run("demo", "--url", "nowhere", "--key", "k")).isEqualTo(ExitCode.USAGE);
    assertThat(err()).contains("demmo").doesNotContain("\tat ");
  }

  @Test
  void saysHowToStartADemoWithoutTheLauncher() {
    assertThat(run("demo")).isEqualTo(ExitCode.CANNOT);
    assertThat(err()).contains("use ./foredeck demo");
  }

  @Test
  void documentsItsExitCodes() {
    assertThat(run("--help")).isZero();
    assertThat(run("policy", "test", "--help")).isZero();
    assertThat(out()).contains("Exit codes:").contains("130").contains("demo").contains("policy");
  }
}
