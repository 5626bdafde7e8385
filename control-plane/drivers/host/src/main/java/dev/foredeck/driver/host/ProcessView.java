package dev.foredeck.driver.host;

import dev.foredeck.core.Resources;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;

/// What the kernel says, from outside, of a sandbox's first process: each method returns one
/// sentence for every promise that does not hold.
public final class ProcessView {
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

  private final long pid;
  private final Path process;

  public ProcessView(long pid) {
    this.pid = pid;
    this.process = Path.of("/proc", Long.toString(pid));
  }

  /// @param kinds as `/proc/<pid>/ns` names them
  public List<String> namespaces(List<String> kinds) throws IOException {
    List<String> findings = new ArrayList<>();
    for (String kind : kinds) {
      Path link = Path.of("ns", kind);
      if (Files.readSymbolicLink(process.resolve(link))
          .equals(Files.readSymbolicLink(Path.of("/proc/self").resolve(link)))) {
        findings.add("A sandbox shares the host's " + kind + " namespace.");
      }
    }
    return findings;
  }

  public List<String> capabilities() throws IOException {
    List<String> findings = new ArrayList<>();
    Map<String, String> status = status();
    for (String set : List.of("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")) {
      if (!status.getOrDefault(set, "").matches("0+")) {
        findings.add("A sandbox has capabilities (" + set + " " + status.get(set) + ").");
      }
    }
    return findings;
  }

  public List<String> confinement() throws IOException {
    List<String> findings = new ArrayList<>();
    Map<String, String> status = status();
    if (!"1".equals(status.get("NoNewPrivs"))) {
      findings.add(
          "A sandbox's programs can gain privileges (NoNewPrivs "
              + status.get("NoNewPrivs")
              + ").");
    }
    if (!"2".equals(status.get("Seccomp"))) {
      findings.add(
          "A sandbox's system calls are not filtered (Seccomp " + status.get("Seccomp") + ").");
    }
    return findings;
  }

  /// @param uid the host's number of the user that the sandbox was given
  public List<String> user(int uid) throws IOException {
    String wanted = Integer.toString(uid);
    for (String field : List.of("Uid", "Gid")) {
      for (String seen : status().getOrDefault(field, "0").split("\\s+")) {
        if (!seen.equals(wanted)) {
          return List.of("A sandbox's agent runs as user " + seen + " of the host.");
        }
      }
    }
    return List.of();
  }

  /// Whether one of its users is the host's root.
  public boolean hasRootOfTheHost() throws IOException {
    // Lines as `0 231072 65536`: the first inside, the first of the host's, how many.
    return Files.readString(process.resolve("uid_map"))
        .lines()
        .anyMatch(line -> line.strip().split("\\s+")[1].equals("0"));
  }

  public List<String> mounts() throws IOException {
    return mounts(Files.readString(process.resolve("mountinfo")), false);
  }

  /// @param table as in `/proc/self/mountinfo`
  /// @param ownKernel whether the table is that of a kernel of the sandbox's own: it shows what it
  ///   was told of a mount and not what the host's mount has; no device of the host can be opened
  ///   in it, and a setuid program gives nobody a user of the host
  static List<String> mounts(String table, boolean ownKernel) {
    List<String> findings = new ArrayList<>();
    for (String line : table.lines().toList()) {
      Optional<KernelTables.Mount> mount = KernelTables.parseMount(line);
      if (mount.isEmpty()) {
        continue;
      }
      String point = mount.get().point().toString();
      Set<String> options = Set.of(line.split(" ")[5].split(","));
      boolean device = mount.get().type().equals("devtmpfs") && point.startsWith("/");
      if (WritablePlaces.OFFERED.contains(point)) {
        if (!ownKernel && (!options.contains("nosuid") || !options.contains("nodev"))) {
          findings.add("A sandbox's " + point + " allows devices or setuid programs.");
        }
      } else if (!device
          && !KERNEL_MOUNTS.contains(point)
          && !options.contains("ro")
          && !masks(mount.get())) {
        findings.add("A sandbox's " + point + " is mounted writable.");
      }
    }
    return findings;
  }

  /// A file of `/proc` that is covered by `/dev/null`, as runtimes do to hide it.
  private static boolean masks(KernelTables.Mount mount) {
    return mount.type().equals("tmpfs")
        && mount.point().startsWith("/proc/")
        && mount.root().equals("/null");
  }

  public List<String> network() throws IOException {
    List<String> findings = new ArrayList<>();
    for (String line : Files.readString(process.resolve("net/dev")).lines().skip(2).toList()) {
      String name = line.substring(0, line.indexOf(':')).strip();
      if (!name.equals("lo") && !FALLBACK_TUNNELS.contains(name)) {
        findings.add("A sandbox has the network interface " + name + ".");
      }
    }
    if (Files.readString(process.resolve("net/route")).lines().count() > 1) {
      findings.add("A sandbox has a network route.");
    }
    return findings;
  }

  public List<String> limits(Resources asked) throws IOException {
    List<String> findings = new ArrayList<>();
    limit(
        findings,
        "memory",
        asked.memoryBytes(),
        number("memory", "memory.limit_in_bytes", "memory.max"));
    limit(findings, "pids", asked.pids(), number("pids", "pids.max", "pids.max"));
    limit(findings, "cpu", asked.cpuMillis(), cpuMillis());
    return findings;
  }

  private static void limit(List<String> findings, String what, long asked, OptionalLong set) {
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

  /// How often the kernel has killed a process of the sandbox for want of memory.
  public long outOfMemoryKills() throws IOException {
    for (String line :
        read("memory", "memory.oom_control", "memory.events").orElse("").lines().toList()) {
      if (line.startsWith("oom_kill ")) {
        return Long.parseLong(line.substring("oom_kill ".length()).strip());
      }
    }
    return 0;
  }

  /// The text of `/proc/<pid>/cgroup`.
  public String cgroups() throws IOException {
    return Files.readString(process.resolve("cgroup"));
  }

  private OptionalLong cpuMillis() throws IOException {
    Optional<String> v2 = read("cpu", "", "cpu.max");
    if (v2.isPresent()) {
      String[] quotaAndPeriod = v2.get().strip().split(" ");
      return quotaAndPeriod.length == 2
          ? millis(parse(quotaAndPeriod[0]), parse(quotaAndPeriod[1]))
          : OptionalLong.empty();
    }
    return millis(number("cpu", "cpu.cfs_quota_us", ""), number("cpu", "cpu.cfs_period_us", ""));
  }

  private static OptionalLong millis(OptionalLong quota, OptionalLong period) {
    return quota.isPresent() && period.isPresent() && quota.getAsLong() > 0
        ? OptionalLong.of(quota.getAsLong() * 1000 / period.getAsLong())
        : OptionalLong.empty();
  }

  private OptionalLong number(String controller, String v1, String v2) throws IOException {
    return parse(read(controller, v1, v2).orElse(""));
  }

  private static OptionalLong parse(String number) {
    try {
      return OptionalLong.of(Long.parseLong(number.strip()));
    } catch (NumberFormatException _) {
      return OptionalLong.empty();
    }
  }

  /// A file of the process's own cgroup; an empty name where a version has none such.
  private Optional<String> read(String controller, String v1, String v2) throws IOException {
    for (KernelTables.Mount mount : KernelTables.mounts()) {
      boolean first =
          mount.type().equals("cgroup")
              && Arrays.asList(mount.superOptions().split(",")).contains(controller);
      boolean second = mount.type().equals("cgroup2");
      String file = first ? v1 : v2;
      if ((first || second) && !file.isEmpty()) {
        Optional<String> path = cgroup(first ? controller : "");
        if (path.isPresent()) {
          Optional<String> text =
              KernelTables.readIfPresent(
                  mount.point().resolve(path.get().substring(1)).resolve(file));
          if (text.isPresent()) {
            return text;
          }
        }
      }
    }
    return Optional.empty();
  }

  /// Lines as `4:memory:/docker/1b2c` and, for v2, `0::/docker/1b2c`.
  private Optional<String> cgroup(String controller) throws IOException {
    for (String line : cgroups().lines().toList()) {
      String[] fields = line.split(":", 3);
      if (fields.length == 3 && Arrays.asList(fields[1].split(",")).contains(controller)) {
        return Optional.of(fields[2]);
      }
    }
    return Optional.empty();
  }

  private Map<String, String> status() throws IOException {
    Map<String, String> fields = new HashMap<>();
    for (String line : Files.readString(process.resolve("status")).lines().toList()) {
      int colon = line.indexOf(':');
      if (colon > 0) {
        fields.put(line.substring(0, colon), line.substring(colon + 1).strip());
      }
    }
    return fields;
  }

  @Override
  public String toString() {
    return "process " + pid;
  }
}
