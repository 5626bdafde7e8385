package dev.foredeck.driver.local;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.KernelTables;
import java.io.IOException;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;

/// The cgroups `<parent>/<sandbox>` in every hierarchy of this host. The runtime makes them and
/// sets their limits; this looks at them, kills what is in them and removes them. It never mounts
/// anything and touches nothing outside `<parent>`.
final class Cgroups {
  /// @param controllers of a v1 hierarchy, as `memory`; those the root offers for v2
  record Hierarchy(Path mount, Set<String> controllers, boolean v2) {
    Hierarchy {
      controllers = Set.copyOf(controllers);
    }
  }

  private final List<Hierarchy> hierarchies;
  private final String parent;

  Cgroups(List<Hierarchy> hierarchies, String parent) {
    this.hierarchies = List.copyOf(hierarchies);
    this.parent = parent;
  }

  /// Looks at what is mounted on this host.
  static Cgroups detect(String parent) throws IOException {
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
    return new Cgroups(found, parent);
  }

  /// What the runtime is told.
  String runtimePath(Id sandbox) {
    return "/" + parent + "/" + sandbox;
  }

  /// The controllers that a sandbox needs and this host lacks.
  Set<String> missing() {
    Set<String> missing = new LinkedHashSet<>(List.of("memory", "pids", "cpu"));
    for (Hierarchy hierarchy : hierarchies) {
      missing.removeAll(hierarchy.controllers());
    }
    return missing;
  }

  /// Whether the kernel can keep a sandbox from using swap: v2 always can.
  boolean limitsSwap() {
    return with("memory")
        .map(memory ->
            memory.v2() || Files.exists(memory.mount().resolve("memory.memsw.limit_in_bytes")))
        .orElse(false);
  }

  OptionalLong memoryLimit(Id sandbox) {
    return value("memory", sandbox, "memory.limit_in_bytes", "memory.max");
  }

  OptionalLong pidsLimit(Id sandbox) {
    return value("pids", sandbox, "pids.max", "pids.max");
  }

  /// Thousandths of a core.
  OptionalLong cpuLimit(Id sandbox) {
    Optional<Hierarchy> cpu = with("cpu");
    if (cpu.isEmpty()) {
      return OptionalLong.empty();
    }
    Path folder = folder(cpu.get(), sandbox);
    if (cpu.get().v2()) {
      String[] quotaAndPeriod =
          KernelTables.readIfPresent(folder.resolve("cpu.max")).orElse("").strip().split(" ");
      return quotaAndPeriod.length == 2
          ? millis(parse(quotaAndPeriod[0]), parse(quotaAndPeriod[1]))
          : OptionalLong.empty();
    }
    return millis(
        value("cpu", sandbox, "cpu.cfs_quota_us", ""),
        value("cpu", sandbox, "cpu.cfs_period_us", ""));
  }

  OptionalLong memoryUsed(Id sandbox) {
    return value("memory", sandbox, "memory.usage_in_bytes", "memory.current");
  }

  /// How often the kernel has killed a process of the sandbox for want of memory.
  long outOfMemoryKills(Id sandbox) {
    Optional<Hierarchy> memory = with("memory");
    if (memory.isEmpty()) {
      return 0;
    }
    String file = memory.get().v2() ? "memory.events" : "memory.oom_control";
    String text =
        KernelTables.readIfPresent(folder(memory.get(), sandbox).resolve(file)).orElse("");
    for (String line : text.lines().toList()) {
      if (line.startsWith("oom_kill ")) {
        return parse(line.substring("oom_kill ".length())).orElse(0);
      }
    }
    return 0;
  }

  /// The host's pids of what runs in the sandbox.
  Set<Long> processes(Id sandbox) {
    Set<Long> pids = new HashSet<>();
    for (Hierarchy hierarchy : hierarchies) {
      KernelTables.readIfPresent(folder(hierarchy, sandbox).resolve("cgroup.procs"))
          .ifPresent(text -> text.lines().map(Long::parseLong).forEach(pids::add));
    }
    return pids;
  }

  /// Kills until nothing is left. The first process of a pid namespace takes all others with it;
  /// until that has happened new ones may appear, hence the loop.
  void kill(Id sandbox, Deadline deadline) throws DriverException.Failed {
    while (true) {
      Set<Long> pids = processes(sandbox);
      if (pids.isEmpty()) {
        return;
      }
      for (Hierarchy hierarchy : hierarchies) {
        write(folder(hierarchy, sandbox), "cgroup.kill", "1");
        // Frozen processes do not die.
        write(folder(hierarchy, sandbox), "freezer.state", "THAWED");
      }
      for (long pid : pids) {
        // A handle knows its process by start time: a pid that was used again is left alone.
        ProcessHandle.of(pid).ifPresent(ProcessHandle::destroyForcibly);
      }
      deadline.pause("kill the processes of " + sandbox);
    }
  }

  void remove(Id sandbox, Deadline deadline) throws IOException, DriverException.Failed {
    for (Hierarchy hierarchy : hierarchies) {
      Path folder = folder(hierarchy, sandbox);
      while (Files.isDirectory(folder)) {
        try {
          Files.deleteIfExists(folder);
        } catch (DirectoryNotEmptyException e) {
          throw new DriverException.Failed("cgroup " + folder + " has cgroups of its own", e);
        } catch (IOException _) {
          // The kernel says busy until the last process is reaped.
          deadline.pause("remove cgroup " + folder);
        }
      }
    }
  }

  boolean exists(Id sandbox) {
    for (Hierarchy hierarchy : hierarchies) {
      if (Files.isDirectory(folder(hierarchy, sandbox))) {
        return true;
      }
    }
    return false;
  }

  Set<Id> list() throws IOException {
    Set<Id> ids = new HashSet<>();
    for (Hierarchy hierarchy : hierarchies) {
      Path folder = hierarchy.mount().resolve(parent);
      if (Files.isDirectory(folder)) {
        try (DirectoryStream<Path> children =
            Files.newDirectoryStream(folder, Files::isDirectory)) {
          for (Path child : children) {
            String name = child.getFileName().toString();
            if (Id.isValid(name)) {
              ids.add(new Id(name));
            }
          }
        }
      }
    }
    return ids;
  }

  /// Removes the parents, where no sandbox is left in them.
  void removeParents() {
    for (Hierarchy hierarchy : hierarchies) {
      try {
        Files.deleteIfExists(hierarchy.mount().resolve(parent));
      } catch (IOException _) {
        // Sandboxes that outlive us are in there.
      }
    }
  }

  private Path folder(Hierarchy hierarchy, Id sandbox) {
    return hierarchy.mount().resolve(parent).resolve(sandbox.value());
  }

  private Optional<Hierarchy> with(String controller) {
    for (Hierarchy hierarchy : hierarchies) {
      if (hierarchy.controllers().contains(controller)) {
        return Optional.of(hierarchy);
      }
    }
    return Optional.empty();
  }

  private OptionalLong value(String controller, Id sandbox, String v1, String v2) {
    Optional<Hierarchy> hierarchy = with(controller);
    if (hierarchy.isEmpty()) {
      return OptionalLong.empty();
    }
    Path file = folder(hierarchy.get(), sandbox).resolve(hierarchy.get().v2() ? v2 : v1);
    return parse(KernelTables.readIfPresent(file).orElse(""));
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

  private static void write(Path folder, String file, String value) {
    Path path = folder.resolve(file);
    if (Files.exists(path)) {
      try {
        Files.writeString(path, value);
      } catch (IOException _) {
        // The cgroup went away meanwhile, or the next round tries again.
      }
    }
  }
}
