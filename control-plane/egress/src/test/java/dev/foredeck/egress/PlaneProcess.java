package dev.foredeck.egress;

import dev.foredeck.core.egress.EgressGateway.Delivery;
import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.egress.EgressGateway.FlowRecorder;
import dev.foredeck.protocol.CertificatePin;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.SecureRandom;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;

/// A control plane that can be killed, with a file for a log. Arguments: control port, file, pin.
/// As the real one it looks a flow up that may have been recorded before, and acknowledges late.
final class PlaneProcess implements FlowRecorder {
  private final FileChannel log;
  private final Set<String> recordedBefore = new HashSet<>();

  private PlaneProcess(Path file) throws IOException {
    if (Files.exists(file)) {
      for (String line : Files.readAllLines(file)) {
        recordedBefore.add(line.substring(0, line.indexOf(' ')));
      }
    }
    log =
        FileChannel.open(
            file, StandardOpenOption.CREATE, StandardOpenOption.WRITE, StandardOpenOption.APPEND);
  }

  @Override
  public void record(Flow flow) {
    write("unknown-end", flow);
  }

  @Override
  public void record(Flow flow, Delivery delivery) {
    if (!delivery.repeated() || !recordedBefore.contains(delivery.id())) {
      write(delivery.id(), flow);
    }
    Thread.ofVirtual()
        .start(() -> {
          try {
            Thread.sleep(20); // Time to die between what is durable and its acknowledgement.
          } catch (InterruptedException _) {
            return;
          }
          delivery.recorded().run();
        });
  }

  private synchronized void write(String id, Flow flow) {
    String line = id + " " + flow.path() + " " + flow.effect() + " " + flow.rule() + "\n";
    try {
      log.write(ByteBuffer.wrap(line.getBytes(StandardCharsets.UTF_8)));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  public static void main(String[] arguments) throws Exception {
    int port = Integer.parseInt(arguments[0]);
    try (RemoteEgressGateway gateway =
        new RemoteEgressGateway(
            Map.of("gateway", Dialer.to("127.0.0.1", port)),
            CertificatePin.of(arguments[2]),
            GatewayFixture.KEY,
            "plane",
            LinkLimits.DEFAULT,
            System::nanoTime,
            new SecureRandom())) {
      gateway.open(
          GatewayFixture.SANDBOX,
          GatewayFixture.credential(),
          GatewayFixture.RULES,
          new PlaneProcess(Path.of(arguments[1])));
      System.out.println("ready");
      new CountDownLatch(1).await();
    }
  }
}
