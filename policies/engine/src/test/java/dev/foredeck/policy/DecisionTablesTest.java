package dev.foredeck.policy;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/// Runs every decision table of a folder. In the engine's own build that is a small example; a
/// module of policies scans this class from the engine's test jar and names its folders:
/// `foredeck.policies` for the policies (`name.yaml`), `foredeck.tables` for the tables
/// (`name.test.yaml`).
class DecisionTablesTest {
  private static final String TABLE_SUFFIX = ".test.yaml";

  private final Path policies =
      Path.of(System.getProperty("foredeck.policies", "src/test/resources/policies"));
  private final Path tables =
      Path.of(System.getProperty("foredeck.tables", "src/test/resources/policies"));
  private final PolicyCompiler compiler = new PolicyCompiler(this::source);

  @TestFactory
  List<DynamicTest> decidesAsItsTableSays() {
    List<DynamicTest> tests = new ArrayList<>();
    for (Path file : files(tables, TABLE_SUFFIX)) {
      tests.add(DynamicTest.dynamicTest(file.getFileName().toString(), () -> run(file)));
    }
    assertThat(tests).as("tables in %s", tables).isNotEmpty();
    return tests;
  }

  private void run(Path file) {
    DecisionTable table = DecisionTable.read(file.toString(), read(file));
    Path policy = policies.resolve(table.policy() + ".yaml");
    Policy subject = compiler.compile(policy.toString(), read(policy));
    assertThat(subject.name()).isEqualTo(table.policy());
    assertThat(table.run(subject)).isEmpty();
  }

  @Test
  void everyPolicyHasATable() {
    assertThat(names(tables, TABLE_SUFFIX)).isEqualTo(names(policies, ".yaml"));
  }

  @Test
  void theIndexNamesEveryPolicy() {
    Path index = policies.resolve("index");
    if (Files.exists(index)) {
      assertThat(read(index).lines().toList()).containsExactlyElementsOf(names(policies, ".yaml"));
    }
  }

  private Optional<String> source(String name) {
    Path file = policies.resolve(name + ".yaml");
    return Files.exists(file) ? Optional.of(read(file)) : Optional.empty();
  }

  private static List<String> names(Path folder, String suffix) {
    List<String> names = new ArrayList<>();
    for (Path file : files(folder, suffix)) {
      String name = file.getFileName().toString();
      if (suffix.equals(TABLE_SUFFIX) || !name.endsWith(TABLE_SUFFIX)) {
        names.add(name.substring(0, name.length() - suffix.length()));
      }
    }
    Collections.sort(names);
    return names;
  }

  private static List<Path> files(Path folder, String suffix) {
    try (Stream<Path> files = Files.list(folder)) {
      return files.filter(file -> file.toString().endsWith(suffix)).sorted().toList();
    } catch (IOException broken) {
      throw new UncheckedIOException(broken);
    }
  }

  private static String read(Path file) {
    try {
      return Files.readString(file);
    } catch (IOException broken) {
      throw new UncheckedIOException(broken);
    }
  }
}
