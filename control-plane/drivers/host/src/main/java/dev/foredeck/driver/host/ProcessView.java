package dev.foredeck.driver.host;

import dev.foredeck.core.Resources;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
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
  private final Cgroup cgroup;

  public ProcessView(long pid) throws IOException {
    this.pid = pid;
    this.process = Path.of("/proc", Long.toString(pid));
    this.cgroup = Cgroup.ofProcess(pid);
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

  /// @param first the host's number of the first user that was given to the sandbox
  /// @param count how many were, from there on
  public List<String> users(int first, int count) throws IOException {
    for (String field : List.of("Uid", "Gid")) {
      for (String seen : status().getOrDefault(field, "0").split("\\s+")) {
        long user = Long.parseLong(seen);
        if (user < first || user >= (long) first + count) {
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

  public List<String> limits(Resources asked) {
    List<String> findings = new ArrayList<>();
    limit(findings, "memory", asked.memoryBytes(), cgroup.memoryLimit());
    limit(findings, "pids", asked.pids(), cgroup.pidsLimit());
    limit(findings, "cpu", asked.cpuMillis(), cgroup.cpuLimit());
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

  /// How often the kernel has killed a process of the sandbox for want of memory; known also when
  /// the process that is looked at was one of them.
  public long outOfMemoryKills() {
    return cgroup.outOfMemoryKills();
  }

  /// The text of `/proc/<pid>/cgroup`.
  public String cgroups() throws IOException {
    return Files.readString(process.resolve("cgroup"));
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
