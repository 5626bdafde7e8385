package dev.foredeck.app;

import dev.foredeck.app.Configuration.ConfigurationException;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;

/// `foredeck gateway`. Exit codes as those of [Main].
@Command(
    name = "gateway",
    description =
        "Runs the egress gateway as a process of its own, in the foreground. It is configured by"
            + " environment alone: FOREDECK_GATEWAY_LISTEN, _CONTROL, _HEALTH, _CERTIFICATE, _KEY"
            + " and FOREDECK_EGRESS_PINS.",
    mixinStandardHelpOptions = true)
final class GatewayCommand implements Callable<Integer> {
  private static final int REFUSED = 2;

  @Override
  public Integer call() {
    try {
      Map<String, String> environment = System.getenv();
      Gateway gateway = Gateway.start(GatewayConfiguration.of(environment));
      Foreground.run(gateway, () -> "foredeck gateway ready " + gateway.addresses());
      return 0;
    } catch (ConfigurationException e) {
      System.err.println("foredeck: " + e.getMessage());
      return REFUSED;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return 1;
    }
  }
}
