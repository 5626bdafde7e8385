package dev.foredeck.cli;

import dev.foredeck.policy.Policy;
import dev.foredeck.policy.PolicyCompiler;
import dev.foredeck.policy.PolicyException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Parameters;

/// `foredeck policy check FILE...`.
@Command(
    name = "check",
    mixinStandardHelpOptions = true,
    description = {
      "Compiles policies and prints every fault with its line.",
      "'extends' finds policies beside the file, then those that come with Foredeck."
    })
final class PolicyCheckCommand implements Callable<Integer> {
  private final Surroundings around;

  @Parameters(arity = "1..*", paramLabel = "FILE", description = "A policy.")
  private List<Path> files = new ArrayList<>();

  PolicyCheckCommand(Surroundings around) {
    this.around = around;
  }

  @Override
  public Integer call() {
    boolean good = true;
    for (Path given : files) {
      Path file = around.folder().resolve(given);
      String source = PolicySources.read(file);
      PolicySources sources = new PolicySources(List.of(parent(file)));
      PolicyCompiler compiler =
          new PolicyCompiler(name -> sources.find(name).map(PolicySources.Source::text));
      try {
        Policy policy = compiler.compile(given.toString(), source);
        around
            .terminal()
            .line(
                given
                    + ": "
                    + policy.reference()
                    + ", "
                    + policy.ruleIds().size()
                    + " rules"
                    + (policy.shadow() ? ", shadow: decides and does not block" : ""));
      } catch (PolicyException e) {
        good = false;
        e.faults().forEach(fault -> around.terminal().line(Terminal.harmless(fault.toString())));
      }
    }
    return good ? ExitCode.OK : ExitCode.NO;
  }

  static Path parent(Path file) {
    Path parent = file.toAbsolutePath().getParent();
    return parent == null ? file : parent;
  }
}
