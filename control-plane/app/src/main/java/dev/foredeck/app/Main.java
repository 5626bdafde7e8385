package dev.foredeck.app;

import dev.foredeck.app.Configuration.ConfigurationException;
import dev.foredeck.policy.PolicyException;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/// `foredeck up`. Exit codes: 0 after SIGTERM or SIGINT, 1 for a fault, 2 for a configuration or a
/// host that cannot be used.
@Command(
    name = "up",
    description = "Runs the control plane in the foreground.",
    mixinStandardHelpOptions = true)
public final class Main implements Callable<Integer> {
  private static final Logger LOG = LoggerFactory.getLogger(Main.class);
  private static final int REFUSED = 2;

  @Option(names = "--listen", paramLabel = "HOST:PORT", description = "default 127.0.0.1:7070")
  private @Nullable String listen;

  @Option(names = "--data", paramLabel = "DIR", description = "default /var/lib/foredeck")
  private @Nullable String data;

  @Option(
      names = "--driver",
      paramLabel = "NAME",
      description = "local (default), docker, kubernetes or simulated")
  private @Nullable String driver;

  public static void main(String[] arguments) {
    CommandLine commands = new CommandLine(new Root());
    commands.addSubcommand("up", new Main());
    commands.addSubcommand("gateway", new GatewayCommand());
    System.exit(commands.execute(arguments));
  }

  @Command(name = "foredeck")
  private static final class Root implements Callable<Integer> {
    @Override
    public Integer call() {
      return REFUSED;
    }
  }

  @Override
  public Integer call() {
    Map<String, String> options = new HashMap<>();
    put(options, "listen", listen);
    put(options, "data", data);
    put(options, "driver", driver);
    try {
      Configuration configuration = Configuration.of(options, System.getenv());
      ControlPlane plane = new ControlPlane(configuration);
      Foreground.run(
          plane,
          () -> {
            String address = plane.start();
            LOG.info("the operator's key is in {}", configuration.dataDir().resolve("admin.key"));
            return "foredeck ready " + address;
          });
      return 0;
    } catch (ConfigurationException e) {
      System.err.println("foredeck: " + e.getMessage());
      return REFUSED;
    } catch (PolicyException e) {
      System.err.println("foredeck: a policy cannot be used:\n" + e.getMessage());
      return REFUSED;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return 1;
    }
  }

  private static void put(Map<String, String> options, String key, @Nullable String value) {
    if (value != null) {
      options.put(key, value);
    }
  }
}
