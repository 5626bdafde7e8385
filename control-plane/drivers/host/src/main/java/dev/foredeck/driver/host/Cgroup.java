package dev.foredeck.driver.host;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;

/// One cgroup of this host: its limits, and what the kernel counts there. Reads only.
public final class Cgroup {
  /// @param controllers of a v1 hierarchy, as `memory`; those the root offers for v2
  public record Hierarchy(Path mount, Set<String> controllers, boolean v2) {
    public Hierarchy {
      controllers = Set.copyOf(controllers);
    }
  }

  private final Map<Hierarchy, Path> folders;

  /// @param folders of the cgroup, one in each hierarchy where it is
  public Cgroup(Map<Hierarchy, Path> folders) {
    this.folders = Map.copyOf(folders);
  }

  /// What is mounted on this host.
  public static List<Hierarchy> hierarchies() throws IOException {
    List<Hierarchy> found = new ArrayList<>();
    for (KernelTables.Mount mount : KernelTables.mounts()) {
      if (mount.type().equals("cgroup")) {
        found.add(
            new Hierarchy(
                mount.point(),
                new HashSet<>(Arrays.asList(mount.superOptions().split(","))),
                false));
      } else if (mount.type().equals("cgroup2")) {
        String offered =
            KernelTables.readIfPresent(mount.point().resolve("cgroup.controllers")).orElse("");
        found.add(
            new Hierarchy(
                mount.point(), new HashSet<>(Arrays.asList(offered.strip().split("\\s+"))), true));
      }
    }
    return found;
  }

  /// Where a process is. Its lines are as `4:memory:/docker/1b2c` and, for v2, `0::/docker/1b2c`.
  public static Cgroup ofProcess(long pid) throws IOException {
    Map<Hierarchy, Path> folders = new LinkedHashMap<>();
    List<Hierarchy> hierarchies = hierarchies();
    for (String line : Files.readAllLines(Path.of("/proc", Long.toString(pid), "cgroup"))) {
      String[] fields = line.split(":", 3);
      for (Hierarchy hierarchy : hierarchies) {
        boolean here =
            fields.length == 3
                && (hierarchy.v2()
                    ? fields[1].isEmpty()
                    : hierarchy.controllers().containsAll(Arrays.asList(fields[1].split(","))));
        if (here) {
          folders.put(hierarchy, hierarchy.mount().resolve(fields[2].substring(1)));
        }
      }
    }
    return new Cgroup(folders);
  }

  public OptionalLong memoryLimit() {
    return number("memory", "memory.limit_in_bytes", "memory.max");
  }

  public OptionalLong memoryUsed() {
    return number("memory", "memory.usage_in_bytes", "memory.current");
  }

  public OptionalLong pidsLimit() {
    return number("pids", "pids.max", "pids.max");
  }

  /// Thousandths of a core.
  public OptionalLong cpuLimit() {
    Optional<String> v2 = read("cpu", "", "cpu.max");
    if (v2.isEmpty()) {
      return millis(number("cpu", "cpu.cfs_quota_us", ""), number("cpu", "cpu.cfs_period_us", ""));
    }
    String[] quotaAndPeriod = v2.get().strip().split(" ");
    return quotaAndPeriod.length == 2
        ? millis(parse(quotaAndPeriod[0]), parse(quotaAndPeriod[1]))
        : OptionalLong.empty();
  }

  /// How often the kernel has killed a process in there for want of memory.
  public long outOfMemoryKills() {
    for (String line :
        read("memory", "memory.oom_control", "memory.events").orElse("").lines().toList()) {
      if (line.startsWith("oom_kill ")) {
        return parse(line.substring("oom_kill ".length())).orElse(0);
      }
    }
    return 0;
  }

  private OptionalLong number(String controller, String v1, String v2) {
    return parse(read(controller, v1, v2).orElse(""));
  }

  /// The text of a file; an empty name where a version has none such.
  private Optional<String> read(String controller, String v1, String v2) {
    for (Map.Entry<Hierarchy, Path> folder : folders.entrySet()) {
      String file = folder.getKey().v2() ? v2 : v1;
      if (!file.isEmpty() && folder.getKey().controllers().contains(controller)) {
        return KernelTables.readIfPresent(folder.getValue().resolve(file));
      }
    }
    return Optional.empty();
  }

  private static OptionalLong millis(OptionalLong quota, OptionalLong period) {
    return quota.isPresent() && period.isPresent() && quota.getAsLong() > 0
        ? OptionalLong.of(quota.getAsLong() * 1000 / period.getAsLong())
        : OptionalLong.empty();
  }

  /// @return empty for `max`, for `-1` stays -1
  private static OptionalLong parse(String number) {
    try {
      return OptionalLong.of(Long.parseLong(number.strip()));
    } catch (NumberFormatException _) {
      return OptionalLong.empty();
    }
  }
}
