package dev.foredeck.egress;

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;

/// A gateway that can be killed. Arguments: bridge port, control port, the site's port,
/// certificate.
final class GatewayProcess {
  private GatewayProcess() {}

  public static void main(String[] arguments) throws Exception {
    InetAddress loopback = InetAddress.getLoopbackAddress();
    try (GatewayServer _ =
        new GatewayServer(
            new GatewayServer.Ports(
                new InetSocketAddress(loopback, Integer.parseInt(arguments[0])),
                new InetSocketAddress(loopback, Integer.parseInt(arguments[1]))),
            dev.foredeck.core.DeploymentTls.parse(Files.readString(Path.of(arguments[3]))),
            GatewayFixture.KEY,
            EgressLimits.DEFAULT,
            LinkLimits.DEFAULT,
            new Pins(
                Map.of(
                    "site.test", new InetSocketAddress(loopback, Integer.parseInt(arguments[2])))),
            _ -> List.of(),
            Set::of,
            System::nanoTime,
            new SecureRandom())) {
      System.out.println("ready");
      new CountDownLatch(1).await();
    }
  }
}
