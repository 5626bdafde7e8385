package dev.foredeck.cli;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import picocli.CommandLine;
import picocli.CommandLine.Command;

/// The verbs that the launcher script hands over: see `foredeck --help`.
@Command(
    name = "foredeck",
    description = "Gives AI agents governed Linux sandboxes.",
    synopsisSubcommandLabel = "COMMAND",
    mixinStandardHelpOptions = true,
    version = "foredeck 0.1.0-SNAPSHOT",
    footer = {
      "",
      "The launcher script itself has: up, test, fmt, bench, schema, golden (CONTRIBUTING.md)."
    })
public final class Main {
  private Main() {}

  public static void main(String[] args) {
    // Terminals are UTF-8 nearly everywhere, also where the locale says "C".
    PrintStream out =
        new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);
    PrintStream err =
        new PrintStream(new FileOutputStream(FileDescriptor.err), true, StandardCharsets.UTF_8);
    Terminal terminal = new Terminal(out, Terminal.wantsColour(System.getenv()));
    Path folder = Path.of("").toAbsolutePath();
    System.exit(run(new Surroundings(System.getenv(), folder, terminal, err), args));
  }

  /// @return the exit code
  static int run(Surroundings around, String... args) {
    CommandLine line = new CommandLine(new Main());
    line.addSubcommand(new DemoCommand(around));
    CommandLine policy = new CommandLine(new PolicyCommand());
    policy.addSubcommand(new PolicyTestCommand(around));
    policy.addSubcommand(new PolicyCheckCommand(around));
    line.addSubcommand(policy);
    describeExitCodes(line);
    line.setOut(new PrintWriter(around.terminal().out(), true, StandardCharsets.UTF_8));
    line.setErr(new PrintWriter(around.err(), true, StandardCharsets.UTF_8));
    line.setExecutionExceptionHandler((thrown, _, _) -> {
      if (thrown instanceof CommandException ended) {
        around.err().println("foredeck: " + ended.text());
        return ended.exitCode();
      }
      around.err().println("foredeck: a fault in foredeck itself: " + thrown);
      if (around.environment().containsKey("FOREDECK_DEBUG")) {
        thrown.printStackTrace(around.err());
      } else {
        around.err().println("foredeck: FOREDECK_DEBUG=1 shows where");
      }
      return ExitCode.CANNOT;
    });
    return line.execute(args);
  }

  private static void describeExitCodes(CommandLine line) {
    line.getCommandSpec().exitCodeOnInvalidInput(ExitCode.USAGE);
    line.getCommandSpec().exitCodeOnExecutionException(ExitCode.CANNOT);
    line.getCommandSpec().usageMessage().exitCodeListHeading("%nExit codes:%n");
    line.getCommandSpec().usageMessage().exitCodeList(ExitCode.described());
    line.getSubcommands().values().forEach(Main::describeExitCodes);
  }
}
