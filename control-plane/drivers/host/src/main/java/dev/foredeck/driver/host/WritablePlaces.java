package dev.foredeck.driver.host;

import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.policy.Boundary;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;

/// Which places of a sandbox can be written, compiled from a policy's boundary. Everything else is
/// read-only in any case. What cannot be enforced is refused by name, never weakened.
///
/// @param paths those of [#OFFERED] that are writable
public record WritablePlaces(Set<String> paths) {
  public static final String WORKSPACE = "/workspace";

  /// All that can be made writable.
  public static final List<String> OFFERED = List.of(WORKSPACE, "/tmp", "/var/tmp", "/dev/shm");

  public WritablePlaces {
    paths = Set.copyOf(paths);
  }

  public boolean has(String path) {
    return paths.contains(path);
  }

  public static WritablePlaces of(Boundary boundary) throws DriverException.Refused {
    Set<String> writable = new LinkedHashSet<>(OFFERED);
    if (!boundary.readWrite().isEmpty()) {
      Set<Path> asked = new LinkedHashSet<>();
      for (String path : boundary.readWrite()) {
        asked.add(absolute(path, "readWrite"));
      }
      writable.removeIf(offered -> !asked.contains(Path.of(offered)));
      for (Path path : asked) {
        if (writable.stream().noneMatch(path::startsWith)) {
          throw new DriverException.Refused(
              "this driver cannot make "
                  + path
                  + " writable (boundary.files.readWrite): only "
                  + String.join(", ", OFFERED)
                  + " and what is beneath one of them that is listed too");
        }
      }
    }
    for (String path : boundary.readOnly()) {
      Path readOnly = absolute(path, "readOnly");
      for (String place : writable) {
        // Above a writable place is fine where the policy itself says that the place is writable:
        // then the longer path wins. A part of a writable place cannot be protected.
        boolean listed = boundary.readWrite().contains(place);
        if (readOnly.startsWith(place) || (Path.of(place).startsWith(readOnly) && !listed)) {
          throw new DriverException.Refused(
              "this driver cannot keep "
                  + readOnly
                  + " read-only (boundary.files.readOnly) while "
                  + place
                  + " is writable");
        }
      }
    }
    return new WritablePlaces(writable);
  }

  /// What the driver cannot run with, or the boundary does not allow.
  public static void check(Resources resources, Boundary boundary) throws DriverException.Refused {
    atLeast("memory", resources.memoryBytes(), 96L << 20, "bytes");
    atLeast("disk", resources.diskBytes(), 8L << 20, "bytes");
    atLeast("cpu", resources.cpuMillis(), 10, "thousandths of a core");
    atLeast("pids", resources.pids(), 64, "processes and threads");
    atMost("memory", resources.memoryBytes(), boundary.memoryBytes().orElse(Long.MAX_VALUE));
    atMost("disk", resources.diskBytes(), boundary.diskBytes().orElse(Long.MAX_VALUE));
    atMost("cpu", resources.cpuMillis(), boundary.cpuMillis().orElse(Integer.MAX_VALUE));
    atMost("pids", resources.pids(), boundary.pids().orElse(Integer.MAX_VALUE));
  }

  private static void atLeast(String what, long asked, long least, String unit)
      throws DriverException.Refused {
    if (asked < least) {
      throw new DriverException.Refused(
          what + " of a sandbox must be at least " + least + " " + unit + ", not " + asked);
    }
  }

  private static void atMost(String what, long asked, long most) throws DriverException.Refused {
    if (asked > most) {
      throw new DriverException.Refused(
          what + " " + asked + " is more than the boundary's " + most);
    }
  }

  private static Path absolute(String path, String field) throws DriverException.Refused {
    try {
      Path parsed = Path.of(path);
      if (parsed.isAbsolute() && parsed.equals(parsed.normalize())) {
        return parsed;
      }
    } catch (InvalidPathException _) {
      // Refused below, as any other path that the kernel would not take.
    }
    throw new DriverException.Refused(
        "boundary.files." + field + " must hold absolute paths without . or .., not " + path);
  }
}
