package dev.foredeck.cli;

import dev.foredeck.cli.Terminal.Style;
import dev.foredeck.policy.DecisionTable;
import dev.foredeck.policy.Policy;
import dev.foredeck.policy.PolicyCompiler;
import dev.foredeck.policy.PolicyException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.stream.Stream;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/// `foredeck policy test DIR|FILE...`.
@Command(
    name = "test",
    mixinStandardHelpOptions = true,
    description = {
      "Runs decision tables (*.test.yaml).",
      "The policy that a table names is searched beside it, then in --policies, then among those"
          + " that come with Foredeck."
    })
final class PolicyTestCommand implements Callable<Integer> {
  private static final String SUFFIX = ".test.yaml";
  private static final int MAX_TABLES = 10_000;
  private static final int MAX_DEPTH = 16;

  private final Surroundings around;

  @Parameters(
      arity = "1..*",
      paramLabel = "DIR|FILE",
      description = "A table, or a folder with tables in it or below it.")
  private List<Path> places = new ArrayList<>();

  @Option(names = "--policies", paramLabel = "DIR", description = "Where else policies are.")
  private List<Path> policies = new ArrayList<>();

  PolicyTestCommand(Surroundings around) {
    this.around = around;
  }

  @Override
  public Integer call() {
    int failed = 0;
    List<Path> tables = tables();
    for (Path table : tables) {
      if (!passes(table)) {
        failed++;
      }
    }
    around
        .terminal()
        .line(
            tables.size()
                + " tables, "
                + (failed == 0 ? "all as they should be" : failed + " failed"));
    return failed == 0 ? ExitCode.OK : ExitCode.NO;
  }

  private List<Path> tables() {
    List<Path> tables = new ArrayList<>();
    for (Path place : places) {
      Path resolved = around.folder().resolve(place);
      if (!Files.isDirectory(resolved)) {
        tables.add(resolved);
        continue;
      }
      int before = tables.size();
      try (Stream<Path> files = Files.walk(resolved, MAX_DEPTH)) {
        files
            .filter(file -> file.getFileName().toString().endsWith(SUFFIX))
            .sorted()
            .limit(MAX_TABLES)
            .forEach(tables::add);
      } catch (IOException | UncheckedIOException e) {
        throw new CommandException(
            ExitCode.CANNOT, place + " cannot be read: " + e.getMessage(), e);
      }
      if (tables.size() == before) {
        throw new CommandException(
            ExitCode.CANNOT, "there is no decision table (*" + SUFFIX + ") in " + place);
      }
    }
    return tables;
  }

  private boolean passes(Path file) {
    String shown = shown(file);
    List<String> faults = new ArrayList<>();
    int cases = 0;
    try {
      DecisionTable table = DecisionTable.read(shown, PolicySources.read(file));
      cases = table.cases().size();
      List<Path> folders = new ArrayList<>();
      folders.add(PolicyCheckCommand.parent(file));
      policies.forEach(folder -> folders.add(around.folder().resolve(folder)));
      PolicySources sources = new PolicySources(folders);
      Optional<PolicySources.Source> source = sources.find(table.policy());
      if (source.isEmpty()) {
        faults.add(shown + ": there is no policy '" + table.policy() + "'; --policies says where");
      } else {
        PolicyCompiler compiler =
            new PolicyCompiler(name -> sources.find(name).map(PolicySources.Source::text));
        Policy policy = compiler.compile(source.get().file(), source.get().text());
        table.run(policy).forEach(failure -> faults.add(failure.toString()));
      }
    } catch (PolicyException e) {
      e.faults().forEach(fault -> faults.add(fault.toString()));
    }
    Terminal terminal = around.terminal();
    String mark =
        faults.isEmpty() ? terminal.styled(Style.GOOD, "✓") : terminal.styled(Style.BAD, "✗");
    terminal.line(mark + " " + shown + (cases > 0 ? ": " + cases + " cases" : ""));
    faults.forEach(fault -> terminal.line("  " + Terminal.harmless(fault)));
    return faults.isEmpty();
  }

  private String shown(Path file) {
    return file.startsWith(around.folder())
        ? around.folder().relativize(file).toString()
        : file.toString();
  }
}
