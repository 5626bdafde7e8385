package dev.foredeck.egress;

import static dev.foredeck.egress.RawClient.head;
import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.DeploymentTls;
import dev.foredeck.protocol.CertificatePin;
import java.io.BufferedReader;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.Lock;
import java.util.concurrent.locks.ReentrantLock;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/// Gateway and control plane as processes, killed with kill -9 in turn while a sandbox asks and
/// asks. What reached the web is in the log, once; and nothing is in the log twice.
@Timeout(300)
class GatewayKillIT {
  private static final int KILLS = 3;
  private static final int CLIENTS = 4;

  private final List<Process> processes = new ArrayList<>();
  private final Set<String> reached = ConcurrentHashMap.newKeySet();
  private final Set<String> answered = ConcurrentHashMap.newKeySet();
  private final AtomicInteger next = new AtomicInteger();
  private final DeploymentTls tls = DeploymentTls.generate(new SecureRandom());

  /// While it is shut, the site answers nobody.
  private final Lock site = new ReentrantLock();

  private final AtomicInteger waiting = new AtomicInteger();
  private int bridgePort;

  @TempDir Path folder;

  @AfterEach
  void end() throws Exception {
    for (Process process : processes) {
      process.destroyForcibly();
      process.waitFor(20, TimeUnit.SECONDS);
    }
  }

  private static int freePort() throws IOException {
    try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      return socket.getLocalPort();
    }
  }

  private Process start(Class<?> main, Object... arguments) throws Exception {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(List.of("-XX:+UseSerialGC", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp"));
    command.add(System.getProperty("java.class.path"));
    command.add(main.getName());
    for (Object argument : arguments) {
      command.add(argument.toString());
    }
    Process process =
        new ProcessBuilder(command)
            .redirectError(ProcessBuilder.Redirect.appendTo(folder.resolve("err").toFile()))
            .start();
    processes.add(process);
    BufferedReader out = process.inputReader();
    assertThat(out.readLine()).as(main.getSimpleName()).isEqualTo("ready");
    return process;
  }

  private static void kill(Process process) throws InterruptedException {
    process.destroyForcibly(); // SIGKILL
    assertThat(process.waitFor(20, TimeUnit.SECONDS)).isTrue();
  }

  private void ask(AtomicBoolean stopped) {
    for (int pauseMillis = 0; !stopped.get(); ) {
      String path = "/" + next.incrementAndGet();
      try {
        Thread.sleep(pauseMillis);
      } catch (InterruptedException _) {
        return;
      }
      pauseMillis = 20; // Unless it is answered, somebody is being killed.
      try (RawClient client =
          new RawClient(
              GatewayFixture.bridge(
                  GatewayFixture.loopback(bridgePort),
                  CertificatePin.of(tls.pin()),
                  GatewayFixture.SANDBOX,
                  GatewayFixture.CREDENTIAL))) {
        client.send(head("GET http://site.test" + path + " HTTP/1.1", "Host: site.test"));
        if (client.readAll().startsWith("HTTP/1.1 200 ")) {
          answered.add(path);
          pauseMillis = 0;
        }
      } catch (IOException _) {
        // The gateway is being killed.
      }
    }
  }

  private List<String> log(Path file) throws IOException {
    return Files.exists(file) ? Files.readAllLines(file) : List.of();
  }

  @Test
  void whatReachedTheWebIsInTheLogOnceWhoeverIsKilled() throws Exception {
    Path file = folder.resolve("log");
    Path pem = Files.writeString(folder.resolve("pem"), tls.toPem());
    bridgePort = freePort();
    int controlPort = freePort();
    ScriptedServer.Script script =
        connection -> {
          String request = connection.readUntil("\r\n\r\n");
          reached.add(request.substring(4, request.indexOf(" HTTP")));
          waiting.incrementAndGet();
          site.lock();
          try {
            waiting.decrementAndGet();
          } finally {
            site.unlock();
          }
          connection.send(head("HTTP/1.1 200 OK", "Content-Length: 0"));
        };
    AtomicBoolean stopped = new AtomicBoolean();
    List<Thread> clients = new ArrayList<>();
    try (ScriptedServer server = new ScriptedServer(script)) {
      Object[] gatewayArguments = {bridgePort, controlPort, server.port(), pem};
      Object[] planeArguments = {controlPort, file, tls.pin()};
      Process gateway = start(GatewayProcess.class, gatewayArguments);
      Process plane = start(PlaneProcess.class, planeArguments);
      for (int i = 0; i < CLIENTS; i++) {
        clients.add(Thread.ofPlatform().start(() -> ask(stopped)));
      }
      for (int i = 0; i < KILLS; i++) {
        more();
        kill(plane);
        plane = start(PlaneProcess.class, planeArguments);
        more();
        settle(file);
        killWhileAsked(gateway);
        gateway = start(GatewayProcess.class, gatewayArguments);
      }
      more();
      stopped.set(true);
      for (Thread client : clients) {
        client.join(20_000);
      }
      GatewayServerTest.await("the log is whole", () -> paths(file).containsAll(reached));
    } finally {
      stopped.set(true);
    }
    TreeMap<String, Integer> times = new TreeMap<>();
    paths(file).forEach(path -> times.merge(path, 1, Integer::sum));
    assertThat(times.values()).as("nothing twice").allMatch(count -> count == 1);
    assertThat(times.keySet()).containsAll(answered);
    assertThat(log(file).stream().filter(line -> line.startsWith("unknown-end ")).count())
        .as("each kill of the gateway")
        .isGreaterThanOrEqualTo(KILLS);
    System.out.println(
        "asked "
            + next.get()
            + ", reached "
            + reached.size()
            + ", answered "
            + answered.size()
            + ", recorded "
            + times.size()
            + ", of an end that is not known "
            + log(file).stream().filter(line -> line.startsWith("unknown-end ")).count());
    assertThat(folder.resolve("err")).content().doesNotContain(GatewayFixture.CREDENTIAL);
  }

  /// With a request on its way: nobody but this gateway could tell how it ends.
  private void killWhileAsked(Process gateway) throws Exception {
    site.lock();
    try {
      GatewayServerTest.await("a request at the site", () -> waiting.get() > 0);
      kill(gateway);
    } finally {
      site.unlock();
    }
  }

  private List<String> paths(Path file) throws IOException {
    return log(file).stream().map(line -> line.split(" ")[1]).toList();
  }

  /// Some more answers than there are now.
  private void more() throws Exception {
    int before = answered.size();
    GatewayServerTest.await("answers", () -> answered.size() >= before + 30);
  }

  /// The control plane of before is dead: what it decided has been told to the one of now.
  private void settle(Path file) throws Exception {
    Set<String> until = Set.copyOf(reached);
    GatewayServerTest.await("a log that has caught up", () -> paths(file).containsAll(until));
  }
}
