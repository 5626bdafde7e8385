package dev.foredeck.driver.host;

import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.Driver.AgentConnection;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.policy.Boundary;
import dev.foredeck.protocol.Channel;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.NetworkInterface;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.random.RandomGenerator;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/// A small sandbox, launched through the same code as any other, from which the driver's probe
/// tries to get out: what succeeds from inside is a finding.
public final class Canary {
  /// Always the same, so that the next probe clears what a probe that was cut off has left.
  public static final Id ID = new Id("canary0000000000probe");

  public static final Resources RESOURCES = new Resources(1000, 192L << 20, 16L << 20, 96);

  /// More than a daemon on a busy host takes to remove a container (more than 10 s were seen).
  private static final Duration CLEARED = Duration.ofSeconds(30);

  private static final int OUTPUT_BYTES = 64 * 1024;

  /// Prints `FINDING <sentence>` for each thing that should have been refused. `$1` is a port of
  /// the host's loopback where somebody listens, `$2` the host's addresses.
  private static final String INSIDE =
      """
      finding() { echo "FINDING $*"; }
      for folder in / /usr /usr/bin /etc /var /run /run/foredeck /opt/foredeck/agent /proc/sys/kernel; do
        if (: > "$folder/foredeck-probe") 2>/dev/null; then
          finding "a program in a sandbox can write to $folder"
        fi
      done
      if (echo 1 > /proc/sys/vm/drop_caches) 2>/dev/null; then finding "a program in a sandbox can change /proc/sys"; fi
      if command -v unshare >/dev/null && unshare --user true 2>/dev/null; then
        finding "a program in a sandbox can make a user namespace"
      fi
      if command -v mount >/dev/null && mount -t tmpfs none /tmp 2>/dev/null; then
        finding "a program in a sandbox can mount a file system"
      fi
      if command -v bash >/dev/null; then
        for address in 127.0.0.1 $2; do
          if timeout 1 bash -c "exec 3<>/dev/tcp/$address/$1" 2>/dev/null; then
            finding "a program in a sandbox reaches the host at $address"
          fi
        done
        if timeout 1 bash -c 'exec 3<>/dev/tcp/192.88.99.1/443' 2>/dev/null; then
          finding "a program in a sandbox has a route to the internet"
        fi
      fi
      head -c 32m /dev/zero > /workspace/fill 2>/dev/null && finding "a sandbox's disk takes more than its limit"
      rm -f /workspace/fill
      echo DONE
      """;

  private static final String FORK =
      """
      i=0
      while [ $i -lt 200 ]; do sleep 9 </dev/null >/dev/null 2>&1 & i=$((i+1)); done
      echo forked all
      """;

  private static final String FILL_MEMORY = "head -c 256m /dev/zero | tail -n 1 | wc -c";

  private final Driver driver;
  private final String token;
  private final Deadline deadline;

  /// @param random for its token
  public Canary(Driver driver, RandomGenerator random, Deadline deadline) {
    byte[] secret = new byte[32];
    random.nextBytes(secret);
    this.driver = driver;
    this.token = HexFormat.of().formatHex(secret);
    this.deadline = deadline;
  }

  /// Looks at it while it lives.
  @FunctionalInterface
  public interface Examination {
    void of(Canary canary) throws DriverException, IOException;
  }

  /// Launches it, has it examined, and destroys it whatever happens.
  public void examine(String template, Boundary boundary, Examination examination)
      throws DriverException, IOException {
    driver.destroy(ID, left());
    try {
      driver.launch(
          new LaunchSpec(ID, ID, template, RESOURCES, boundary, token, Map.of(), Instant.EPOCH),
          left());
      examination.of(this);
    } finally {
      // With time of its own: a probe that came to its deadline must not leave its canary.
      driver.destroy(ID, CLEARED);
    }
  }

  private Duration left() {
    return Duration.ofNanos(Math.max(0, deadline.remainingNanos()));
  }

  /// What a program reaches and changes that it should not.
  public List<String> reach() throws DriverException, IOException {
    List<String> findings = new ArrayList<>();
    try (ServerSocket listener = new ServerSocket()) {
      // On every address of the host, as the control plane's own ports may be.
      listener.bind(new InetSocketAddress(0), 16);
      String tried =
          run(
              "callcanary000000inside",
              "sh",
              "-c",
              INSIDE,
              "sh",
              Integer.toString(listener.getLocalPort()),
              hostAddresses());
      for (String line : tried.lines().toList()) {
        if (line.startsWith("FINDING ")) {
          String sentence = line.substring("FINDING ".length());
          findings.add(Character.toUpperCase(sentence.charAt(0)) + sentence.substring(1) + ".");
        }
      }
      if (!tried.strip().endsWith("DONE")) {
        findings.add("The probe's program in the sandbox did not come to its end.");
      }
    }
    return findings;
  }

  /// Takes more memory than there is.
  public List<String> memory() throws DriverException, IOException {
    String filled = run("callcanary000000memory", "sh", "-c", FILL_MEMORY);
    return filled.strip().equals(Long.toString(256L << 20))
        ? List.of("A sandbox can use more memory than its limit.")
        : List.of();
  }

  /// Makes more processes than there may be. The last thing to try: what it leaves behind would
  /// keep other programs from starting.
  public List<String> processes() throws DriverException, IOException {
    return run("callcanary00000000fork", "sh", "-c", FORK).contains("forked all")
        ? List.of("A sandbox can have more processes than its limit.")
        : List.of();
  }

  /// What its programs say of the kernel that they run on, where that is not the host's: nothing
  /// outside can be asked then.
  public List<String> ownKernel() throws DriverException, IOException {
    List<String> findings = new ArrayList<>();
    String version = run("callcanary00000version", "cat", "/proc/version");
    if (version.isBlank() || version.equals(Files.readString(Path.of("/proc/version")))) {
      findings.add("A sandbox does not run on a kernel of its own but on the host's.");
    }
    String status = run("callcanary000000status", "cat", "/proc/self/status");
    if (!Stream.of("CapPrm", "CapEff", "CapBnd").allMatch(set -> isEmpty(status, set))
        || !status.contains("NoNewPrivs:\t1")) {
      findings.add("A sandbox's programs have capabilities, or can gain privileges.");
    }
    if (!status.contains("Seccomp:\t2")) {
      findings.add("The system calls of a sandbox's programs are not filtered.");
    }
    findings.addAll(
        ProcessView.mounts(run("callcanary000000mounts", "cat", "/proc/self/mountinfo"), true));
    return findings;
  }

  private static boolean isEmpty(String status, String capabilities) {
    return status.lines().anyMatch(line -> line.matches(capabilities + ":\\s0+"));
  }

  /// IPv4 addresses of the host, bounded.
  private static String hostAddresses() throws IOException {
    List<String> addresses = new ArrayList<>();
    for (NetworkInterface network : Collections.list(NetworkInterface.getNetworkInterfaces())) {
      for (InetAddress address : Collections.list(network.getInetAddresses())) {
        if (address.getAddress().length == 4
            && !address.isLoopbackAddress()
            && addresses.size() < 4) {
          addresses.add(address.getHostAddress());
        }
      }
    }
    return String.join(" ", addresses);
  }

  /// Runs a program in the canary through its agent, as the gate would.
  ///
  /// @return what it printed
  private String run(String callId, String... argv) throws DriverException, IOException {
    AgentConnection agent = driver.connect(ID, token, left());
    try (Connection connection = agent.connection();
        Watchdog _ = Watchdog.after(left(), agent.connection()::close)) {
      connection.send(
          new Message.StartProcess(
              callId,
              List.of(argv),
              Map.of("PATH", Command.PATH),
              WritablePlaces.WORKSPACE,
              Optional.empty(),
              false,
              10_000,
              100,
              0,
              0));
      return collect(connection);
    }
  }

  private static String collect(Connection connection) throws IOException, DriverException.Failed {
    StringBuilder output = new StringBuilder();
    while (true) {
      @Nullable Message message = connection.receive();
      switch (message) {
        case Message.Output piece -> {
          if (piece.channel() == Channel.STDOUT && output.length() < OUTPUT_BYTES) {
            output.append(new String(piece.bytes(), StandardCharsets.UTF_8));
          }
          connection.send(new Message.Ack(piece.channel(), piece.offset() + piece.bytes().length));
        }
        case Message.Ended _ -> {
          return output.toString();
        }
        case Message.Failure failure ->
            throw new DriverException.Failed(
                "the probe's agent refused a program: "
                    + failure.code()
                    + " "
                    + Command.lastLine(failure.message()));
        case null -> throw new DriverException.Failed("the probe's agent closed its connection");
        default -> {
          // Started, and what later versions may add.
        }
      }
    }
  }
}
