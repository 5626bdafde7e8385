package dev.foredeck.driver.local;

import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.Driver.AgentConnection;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.driver.host.Command;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.KernelTables;
import dev.foredeck.driver.host.UidSlots;
import dev.foredeck.driver.host.Watchdog;
import dev.foredeck.driver.host.WritablePlaces;
import dev.foredeck.policy.Boundary;
import dev.foredeck.policy.Isolation;
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
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;
import java.util.random.RandomGenerator;
import org.jspecify.annotations.Nullable;

/// Finds out whether this host really enforces what the driver promises, by launching a small
/// sandbox through the same code as any other and trying to get out of it: what the kernel says of
/// its process from outside, and what succeeds from inside.
final class Probe {
  /// Always the same, so that the next probe clears what a probe that was cut off has left.
  static final Id CANARY = new Id("canary0000000000probe");

  private static final Resources RESOURCES = new Resources(1000, 192L << 20, 16L << 20, 96);
  private static final int OUTPUT_BYTES = 64 * 1024;

  /// Down, without an address, and in every new network namespace of hosts that have loaded the
  /// module.
  private static final Set<String> FALLBACK_TUNNELS =
      Set.of(
          "tunl0",
          "gre0",
          "gretap0",
          "erspan0",
          "sit0",
          "ip6tnl0",
          "ip6gre0",
          "ip_vti0",
          "ip6_vti0");

  /// Mounts that are writable in part and give nobody a place to keep anything: their folders
  /// belong to users that nothing runs as.
  private static final Set<String> KERNEL_MOUNTS = Set.of("/proc", "/dev", "/dev/pts");

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

  private static final String FILL_MEMORY = "head -c 512m /dev/zero | tail -n 1 | wc -c";

  private final LocalDriver driver;
  private final LocalConfig config;
  private final OciRuntime runtime;
  private final RandomGenerator random;
  private final List<String> findings = new ArrayList<>();

  /// @param runtime one of the two of `config`
  Probe(LocalDriver driver, LocalConfig config, OciRuntime runtime, RandomGenerator random) {
    this.driver = driver;
    this.config = config;
    this.runtime = runtime;
    this.random = random;
  }

  List<String> run(Deadline deadline) {
    try {
      prerequisites(deadline);
      if (findings.isEmpty()) {
        canary(deadline);
      }
    } catch (DriverException | IOException | RuntimeException e) {
      // Whatever went wrong: what was not shown to hold does not hold.
      findings.add("The probe could not be completed: " + describe(e) + ".");
    }
    return List.copyOf(findings);
  }

  private static String describe(Exception e) {
    return e instanceof DriverException ? String.valueOf(e.getMessage()) : e.toString();
  }

  private void prerequisites(Deadline deadline) throws IOException, DriverException.Failed {
    if (!Integer.valueOf(0).equals(Files.getAttribute(Path.of("/proc/self"), "unix:uid"))) {
      findings.add("The local driver needs root: start Foredeck with sudo.");
      return;
    }
    for (Map.Entry<String, String> program :
        Map.of(
                "mkfs.ext4", "e2fsprogs",
                "mount", "mount",
                "umount", "mount",
                "losetup", "util-linux")
            .entrySet()) {
      if (!isInstalled(program.getKey())) {
        findings.add(
            program.getKey()
                + " is missing: install the package "
                + program.getValue()
                + " (apt-get install "
                + program.getValue()
                + ").");
      }
    }
    if (!isInstalled(runtime.program())) {
      findings.add(
          "The OCI runtime "
              + runtime.program()
              + " is missing: install it ("
              + (runtime.hasItsOwnKernel()
                  ? "gVisor, https://gvisor.dev/docs/user_guide/install"
                  : "apt-get install runc, or dnf install runc")
              + ").");
    } else {
      String version = Command.run(deadline, runtime.program(), "--version").output();
      if (version.matches("(?s)runc version (0|1\\.0)\\..*")) {
        findings.add(
            "This runc is too old: 1.1 or newer is needed, this is " + line(version) + ".");
      }
      if (runtime.hasItsOwnKernel() != version.startsWith("runsc version ")) {
        findings.add(
            "The OCI runtime "
                + runtime.program()
                + " is not what its name says: it says "
                + line(version)
                + ".");
      }
    }
    if (!Files.exists(Path.of("/dev/loop-control"))) {
      findings.add("There are no loop devices: load the module (modprobe loop).");
    }
    String namespaces =
        KernelTables.readIfPresent(Path.of("/proc/sys/user/max_user_namespaces")).orElse("0");
    if (namespaces.strip().equals("0")) {
      findings.add(
          "User namespaces are switched off: allow them (sysctl user.max_user_namespaces=15000).");
    }
    Cgroups cgroups = Cgroups.detect(config.cgroupParent());
    if (!cgroups.missing().isEmpty()) {
      findings.add(
          "This host has no cgroup controller for "
              + String.join(", ", cgroups.missing())
              + ": mount cgroups (systemd does, and so does the package cgroupfs-mount).");
    }
    boolean swaps =
        KernelTables.readIfPresent(Path.of("/proc/swaps")).orElse("").lines().count() > 1;
    if (swaps && !cgroups.limitsSwap()) {
      findings.add(
          "Swap is on and the kernel does not count it: boot with swapaccount=1, or switch it off"
              + " (swapoff -a).");
    }
    if (!Files.isReadable(config.agentBundle().resolve("argv"))) {
      findings.add(
          "The agent's bundle is missing from "
              + config.agentBundle()
              + ": build it (sandbox-agent/agent/bundle.sh "
              + config.agentBundle()
              + ").");
    }
  }

  private static String line(String text) {
    return text.lines().findFirst().orElse("");
  }

  private static boolean isInstalled(String program) {
    if (program.startsWith("/")) {
      return Files.isExecutable(Path.of(program));
    }
    for (String folder : Command.PATH.split(":")) {
      if (Files.isExecutable(Path.of(folder, program))) {
        return true;
      }
    }
    return false;
  }

  private void canary(Deadline deadline) throws DriverException, IOException {
    byte[] secret = new byte[32];
    random.nextBytes(secret);
    String token = HexFormat.of().formatHex(secret);
    Duration left = Duration.ofNanos(Math.max(0, deadline.remainingNanos()));
    driver.destroy(CANARY, left);
    try {
      driver.launch(
          new LaunchSpec(
              CANARY,
              CANARY,
              HostTemplate.NAME,
              RESOURCES,
              boundary(),
              token,
              Map.of(),
              Instant.EPOCH),
          left);
      fromOutside();
      fromInside(token, deadline);
    } finally {
      // With time of its own: a probe that came to its deadline must not leave its canary.
      driver.destroy(CANARY, Duration.ofSeconds(10));
    }
  }

  /// With which the driver takes the runtime under test.
  private Boundary boundary() {
    return new Boundary(
        List.of(),
        List.of(),
        OptionalLong.empty(),
        OptionalLong.empty(),
        OptionalInt.empty(),
        OptionalInt.empty(),
        Optional.empty(),
        runtime.equals(config.runtime()) ? Isolation.STANDARD : Isolation.STRONG);
  }

  private void fromOutside() throws IOException, DriverException.Failed {
    long pid =
        driver
            .process(CANARY)
            .orElseThrow(() -> new DriverException.Failed("the probe's sandbox has no process"))
            .pid();
    Path process = Path.of("/proc", Long.toString(pid));
    for (String namespace : List.of("pid", "net", "ipc", "uts", "mnt", "user", "cgroup")) {
      if (namespace.equals("cgroup") && runtime.hasItsOwnKernel()) {
        // Its programs see the cgroups of their own kernel.
        continue;
      }
      Path link = Path.of("ns", namespace);
      if (Files.readSymbolicLink(process.resolve(link))
          .equals(Files.readSymbolicLink(Path.of("/proc/self").resolve(link)))) {
        findings.add("A sandbox shares the host's " + namespace + " namespace.");
      }
    }
    Map<String, String> status = status(process);
    if (!runtime.hasItsOwnKernel()) {
      // gVisor's kernel holds some, in its own user namespace; what its programs have is asked of
      // them.
      for (String set : List.of("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")) {
        if (!status.getOrDefault(set, "").matches("0+")) {
          findings.add("A sandbox has capabilities (" + set + " " + status.get(set) + ").");
        }
      }
      mounts(Files.readString(process.resolve("mountinfo")));
    }
    expect(status, "NoNewPrivs", "1", "A sandbox's programs can gain privileges");
    expect(status, "Seccomp", "2", "A sandbox's system calls are not filtered");
    users(process, status);
    network(process);
    limits();
  }

  private void expect(Map<String, String> status, String field, String value, String finding) {
    if (!value.equals(status.get(field))) {
      findings.add(finding + " (" + field + " " + status.get(field) + ").");
    }
  }

  private void users(Path process, Map<String, String> status) throws IOException {
    for (String map : List.of("uid_map", "gid_map")) {
      String[] mapping = Files.readString(process.resolve(map)).strip().split("\\s+");
      if (mapping.length != 3
          || Long.parseLong(mapping[1]) < UidSlots.FIRST
          || Long.parseLong(mapping[2]) != UidSlots.RANGE) {
        findings.add("A sandbox's users are users of the host (" + map + ").");
      }
    }
    String[] uids = status.getOrDefault("Uid", "0").split("\\s+");
    for (String uid : uids) {
      if (Long.parseLong(uid) < UidSlots.FIRST) {
        findings.add("A sandbox's agent runs as user " + uid + " of the host.");
        return;
      }
    }
  }

  /// @param table as in `/proc/self/mountinfo`
  private void mounts(String table) {
    for (String line : table.lines().toList()) {
      Optional<KernelTables.Mount> mount = KernelTables.parseMount(line);
      if (mount.isEmpty()) {
        continue;
      }
      String point = mount.get().point().toString();
      Set<String> options = Set.of(line.split(" ")[5].split(","));
      boolean device = mount.get().type().equals("devtmpfs") && point.startsWith("/");
      if (WritablePlaces.OFFERED.contains(point)) {
        // gVisor shows no nodev: no device of the host can be opened in it at all.
        boolean noDevices = options.contains("nodev") || runtime.hasItsOwnKernel();
        if (!options.contains("nosuid") || !noDevices) {
          findings.add("A sandbox's " + point + " allows devices or setuid programs.");
        }
      } else if (!device && !KERNEL_MOUNTS.contains(point) && !options.contains("ro")) {
        findings.add("A sandbox's " + point + " is mounted writable.");
      }
    }
  }

  private void network(Path process) throws IOException {
    for (String line : Files.readString(process.resolve("net/dev")).lines().skip(2).toList()) {
      String name = line.substring(0, line.indexOf(':')).strip();
      if (!name.equals("lo") && !FALLBACK_TUNNELS.contains(name)) {
        findings.add("A sandbox has the network interface " + name + ".");
      }
    }
    if (Files.readString(process.resolve("net/route")).lines().count() > 1) {
      findings.add("A sandbox has a network route.");
    }
  }

  private void limits() throws IOException {
    Cgroups cgroups = Cgroups.detect(config.cgroupParent());
    limit("memory", RESOURCES.memoryBytes(), cgroups.memoryLimit(CANARY));
    limit(
        "pids",
        OciConfig.onTheHost(RESOURCES, runtime.hasItsOwnKernel()).pids(),
        cgroups.pidsLimit(CANARY));
    limit("cpu", RESOURCES.cpuMillis(), cgroups.cpuLimit(CANARY));
  }

  private void limit(String what, long asked, OptionalLong set) {
    if (set.isEmpty() || set.getAsLong() != asked) {
      findings.add(
          "A sandbox's "
              + what
              + " limit is "
              + (set.isEmpty() ? "not set" : Long.toString(set.getAsLong()))
              + " instead of "
              + asked
              + ".");
    }
  }

  private static Map<String, String> status(Path process) throws IOException {
    Map<String, String> fields = new HashMap<>();
    for (String line : Files.readString(process.resolve("status")).lines().toList()) {
      int colon = line.indexOf(':');
      if (colon > 0) {
        fields.put(line.substring(0, colon), line.substring(colon + 1).strip());
      }
    }
    return fields;
  }

  private void fromInside(String token, Deadline deadline) throws DriverException, IOException {
    try (ServerSocket listener = new ServerSocket()) {
      // On every address of the host, as the control plane's own ports may be.
      listener.bind(new InetSocketAddress(0), 16);
      Ending tried =
          run(
              token,
              deadline,
              "callcanary000000inside",
              List.of(
                  "sh",
                  "-c",
                  INSIDE,
                  "sh",
                  Integer.toString(listener.getLocalPort()),
                  hostAddresses()));
      for (String line : tried.output().lines().toList()) {
        if (line.startsWith("FINDING ")) {
          String sentence = line.substring("FINDING ".length());
          findings.add(Character.toUpperCase(sentence.charAt(0)) + sentence.substring(1) + ".");
        }
      }
      if (!tried.output().strip().endsWith("DONE")) {
        findings.add("The probe's program in the sandbox did not come to its end.");
      }
    }
    if (runtime.hasItsOwnKernel()) {
      ownKernel(token, deadline);
      return;
    }
    Ending filled =
        run(token, deadline, "callcanary000000memory", List.of("sh", "-c", FILL_MEMORY));
    memoryIsLimited(filled.output());
    // Last: what it leaves behind would keep other programs from starting.
    Ending forked = run(token, deadline, "callcanary00000000fork", List.of("sh", "-c", FORK));
    if (forked.output().contains("forked all")) {
      findings.add("A sandbox can have more processes than its limit.");
    }
  }

  private void memoryIsLimited(String output) throws IOException {
    if (output.strip().equals(Long.toString(512L << 20))) {
      findings.add("A sandbox can use more memory than its limit.");
    }
    if (Cgroups.detect(config.cgroupParent()).outOfMemoryKills(CANARY) == 0) {
      findings.add("A sandbox that passes its memory limit is not stopped.");
    }
  }

  /// What its programs say of the kernel that they run on. Of the limits only memory's is tried:
  /// each ends the whole sandbox, and that of processes was read outside.
  private void ownKernel(String token, Deadline deadline) throws DriverException, IOException {
    String version =
        run(token, deadline, "callcanary00000version", List.of("cat", "/proc/version")).output();
    if (version.isBlank() || version.equals(Files.readString(Path.of("/proc/version")))) {
      findings.add("A sandbox does not run on a kernel of its own but on the host's.");
    }
    String status =
        run(token, deadline, "callcanary000000status", List.of("cat", "/proc/self/status"))
            .output();
    if (!status.matches("(?s).*\nCapEff:\\s0+\n.*") || !status.contains("NoNewPrivs:\t1")) {
      findings.add("A sandbox's programs have capabilities, or can gain privileges.");
    }
    if (!status.contains("Seccomp:\t2")) {
      findings.add("The system calls of a sandbox's programs are not filtered.");
    }
    mounts(
        run(token, deadline, "callcanary000000mounts", List.of("cat", "/proc/self/mountinfo"))
            .output());
    String filled = "";
    try {
      filled =
          run(token, deadline, "callcanary000000memory", List.of("sh", "-c", FILL_MEMORY)).output();
    } catch (DriverException | IOException _) {
      // The sandbox has ended, as it should.
    }
    memoryIsLimited(filled);
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

  private record Ending(String output) {}

  /// Runs a program in the canary through its agent, as the gate would.
  private Ending run(String token, Deadline deadline, String callId, List<String> argv)
      throws DriverException, IOException {
    Duration left = Duration.ofNanos(Math.max(0, deadline.remainingNanos()));
    AgentConnection agent = driver.connect(CANARY, token, left);
    try (Connection connection = agent.connection();
        Watchdog _ = Watchdog.after(left, agent.connection()::close)) {
      connection.send(
          new Message.StartProcess(
              callId,
              argv,
              Map.of("PATH", Command.PATH),
              WritablePlaces.WORKSPACE,
              Optional.empty(),
              false,
              10_000,
              100,
              0,
              0));
      return new Ending(collect(connection));
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
