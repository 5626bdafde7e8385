package dev.foredeck.cli;

import java.io.IOException;
import java.net.InetAddress;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/// `foredeck demo`.
@Command(
    name = "demo",
    mixinStandardHelpOptions = true,
    description = {
      "Does the main job with one HTTP request: a sandbox runs a Python program on real data,"
          + " with governed web access, and its log is shown as it happens.",
      "Leaves chart.png in the current folder and nothing else running."
    })
final class DemoCommand implements Callable<Integer> {
  private static final List<String> DRIVERS = List.of("local", "docker", "kubernetes", "simulated");

  private final Surroundings around;

  @Option(names = "--keep", description = "Keep the data folder (database, logs) for a look.")
  private boolean keep;

  @Option(
      names = "--driver",
      paramLabel = "NAME",
      defaultValue = "local",
      description =
          "local (default), docker, kubernetes or simulated; a simulated sandbox runs no programs.")
  private String driver = "local";

  @Option(
      names = "--url",
      paramLabel = "URL",
      description = "Use the control plane that runs there, and start none.")
  private Optional<URI> url = Optional.empty();

  @Option(
      names = "--key",
      paramLabel = "KEY",
      description =
          "Its API key. Others on this host can read a command line: better FOREDECK_KEY.")
  private Optional<String> key = Optional.empty();

  @Option(names = "--key-file", paramLabel = "FILE", description = "A file with its API key.")
  private Optional<Path> keyFile = Optional.empty();

  @Option(
      names = "--page",
      paramLabel = "URL",
      description = "A page to fetch through the gateway instead of the usual one.")
  private List<URI> pages = new ArrayList<>();

  DemoCommand(Surroundings around) {
    this.around = around;
  }

  @Override
  public Integer call() throws InterruptedException {
    List<String> texts = new ArrayList<>();
    for (URI page : pages) {
      if (page.getHost() == null || page.toString().contains(" ")) {
        throw usage("--page " + page + " is no URL with a host");
      }
      texts.add(page.toString());
    }
    Demo.Target target = url.isPresent() ? running(url.get()) : own();
    return new Demo(around, target, texts).run();
  }

  private Demo.Target own() {
    if (key.isPresent() || keyFile.isPresent()) {
      throw usage("--key and --key-file belong to --url");
    }
    if (!DRIVERS.contains(driver)) {
      throw usage(
          "there is no driver '"
              + driver
              + "' for the demo; there are: "
              + String.join(", ", DRIVERS));
    }
    Optional<String> line =
        Optional.ofNullable(System.getProperty("FOREDECK_UP_COMMAND"))
            .or(() -> around.variable("FOREDECK_UP_COMMAND"));
    if (line.isEmpty()) {
      throw new CommandException(
          ExitCode.CANNOT,
          "FOREDECK_UP_COMMAND does not say how to start a control plane: use ./foredeck demo, or"
              + " name a running one with --url and --key-file");
    }
    try {
      List<String> command = ShellWords.split(line.get());
      if (command.isEmpty()) {
        throw new IllegalArgumentException("it is empty");
      }
      Optional<DockerDaemon> daemon =
          driver.equals("docker") ? Optional.of(DockerDaemon.of(around)) : Optional.empty();
      return new Demo.Target.Own(command, driver, scratch(), Path.of("/"), site(), daemon, keep);
    } catch (IllegalArgumentException e) {
      throw new CommandException(
          ExitCode.CANNOT, "FOREDECK_UP_COMMAND is no command line: " + e.getMessage(), e);
    }
  }

  /// A gateway in a cluster has another loopback: which address it reaches us at, only who set the
  /// cluster up can say.
  private Optional<InetAddress> site() {
    return driver.equals("kubernetes")
        ? around.variable("FOREDECK_DEMO_ADDRESS").map(InetAddress::ofLiteral)
        : Optional.of(InetAddress.getLoopbackAddress());
  }

  /// Not `/tmp`, which is memory on many hosts.
  private Path scratch() {
    return Path.of(around.variable("FOREDECK_DEMO_SCRATCH").orElse("/var/tmp"));
  }

  private Demo.Target running(URI where) {
    if (where.getHost() == null
        || !(where.getScheme().equals("http") || where.getScheme().equals("https"))) {
      throw usage("--url " + where + " is no http or https URL");
    }
    if (key.isPresent()) {
      return new Demo.Target.Running(where, key.get(), "$FOREDECK_KEY");
    }
    if (keyFile.isPresent()) {
      try {
        String text = Files.readString(keyFile.get()).strip();
        String shown = "$(cat " + ShellWords.quote(keyFile.get().toString()) + ")";
        return new Demo.Target.Running(where, text, shown);
      } catch (IOException e) {
        throw new CommandException(
            ExitCode.CANNOT, "--key-file " + keyFile.get() + " cannot be read", e);
      }
    }
    String text =
        around
            .variable("FOREDECK_KEY")
            .orElseThrow(() -> usage("--url needs --key-file, --key or FOREDECK_KEY"));
    return new Demo.Target.Running(where, text, "$FOREDECK_KEY");
  }

  private static CommandException usage(String text) {
    return new CommandException(ExitCode.USAGE, text);
  }
}
