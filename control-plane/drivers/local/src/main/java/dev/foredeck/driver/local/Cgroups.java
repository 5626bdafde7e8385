package dev.foredeck.driver.local;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.host.Cgroup;
import dev.foredeck.driver.host.Cgroup.Hierarchy;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.HostPlaces;
import dev.foredeck.driver.host.KernelTables;
import java.io.IOException;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/// The cgroups `<parent>/<sandbox>` in every hierarchy of this host. The runtime makes them and
/// sets their limits; this looks at them, kills what is in them and removes them. It never mounts
/// anything and touches nothing outside `<parent>`.
final class Cgroups {
  private final List<Hierarchy> hierarchies;
  private final String parent;

  Cgroups(List<Hierarchy> hierarchies, String parent) {
    this.hierarchies = List.copyOf(hierarchies);
    this.parent = parent;
  }

  /// Looks at what is mounted on this host.
  static Cgroups detect(String parent) throws IOException {
    return new Cgroups(Cgroup.hierarchies(), parent);
  }

  /// The sandbox's own.
  Cgroup of(Id sandbox) {
    Map<Hierarchy, Path> folders = new HashMap<>();
    hierarchies.forEach(hierarchy -> folders.put(hierarchy, folder(hierarchy, sandbox)));
    return new Cgroup(folders);
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
    return hierarchies.stream()
        .filter(hierarchy -> hierarchy.controllers().contains("memory"))
        .anyMatch(memory ->
            memory.v2() || Files.exists(memory.mount().resolve("memory.memsw.limit_in_bytes")));
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
      // The files of a cgroup are in there too: none of their names could be an id's.
      ids.addAll(HostPlaces.named(hierarchy.mount().resolve(parent)));
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
