package dev.foredeck.policy;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;
import java.util.function.Function;

/// Reads a policy's `boundary` and holds it to those of the policies that it extends: limits become
/// the least of all, and asking for more than a parent has is a fault.
final class BoundaryReader {
  /// What a driver makes writable where no policy says.
  static final List<String> DEFAULT_READ_WRITE = List.of("/workspace", "/tmp");

  private static final int MAX_PATHS = 64;
  private static final int MAX_PIDS = 1 << 22;

  private final Faults faults;

  BoundaryReader(Faults faults) {
    this.faults = faults;
  }

  /// @param node the policy's `boundary`, where it has one
  /// @param at where faults of the whole are reported
  Boundary read(Optional<YamlNode> node, YamlNode at, List<LayeredPolicy> parents) {
    Boundary inherited = Boundary.NONE;
    boolean first = true;
    for (LayeredPolicy parent : parents) {
      inherited = first ? parent.boundary() : both(inherited, parent.boundary(), at);
      first = false;
    }
    Optional<Fields> fields =
        node.flatMap(given ->
            Fields.of(given, "'boundary'", Set.of("files", "limits", "isolation"), faults));
    if (fields.isEmpty()) {
      return inherited;
    }
    Optional<Fields> files =
        fields
            .get()
            .get("files")
            .flatMap(given ->
                Fields.of(given, "'boundary.files'", Set.of("readOnly", "readWrite"), faults));
    Optional<Fields> limits =
        fields
            .get()
            .get("limits")
            .flatMap(given ->
                Fields.of(
                    given,
                    "'boundary.limits'",
                    Set.of("memory", "disk", "cpu", "pids", "lifetime"),
                    faults));
    return new Boundary(
        readOnly(files, inherited),
        readWrite(files, inherited, !parents.isEmpty()),
        bytes(limits, "memory", inherited.memoryBytes()),
        bytes(limits, "disk", inherited.diskBytes()),
        cpu(limits, inherited.cpuMillis()),
        pids(limits, inherited.pids()),
        lifetime(limits, inherited.lifetime()),
        isolation(fields.get(), inherited.isolation()));
  }

  private Boundary both(Boundary left, Boundary right, YamlNode at) {
    List<String> readOnly = new ArrayList<>(left.readOnly());
    for (String path : right.readOnly()) {
      if (!readOnly.contains(path)) {
        readOnly.add(path);
      }
    }
    return new Boundary(
        readOnly,
        commonPaths(left.readWrite(), right.readWrite(), at),
        least(left.memoryBytes(), right.memoryBytes()),
        least(left.diskBytes(), right.diskBytes()),
        least(left.cpuMillis(), right.cpuMillis()),
        least(left.pids(), right.pids()),
        least(left.lifetime(), right.lifetime()),
        left.isolation().and(right.isolation()));
  }

  private List<String> commonPaths(List<String> left, List<String> right, YamlNode at) {
    if (left.equals(right)) {
      return left;
    }
    List<String> ours = left.isEmpty() ? DEFAULT_READ_WRITE : left;
    List<String> theirs = right.isEmpty() ? DEFAULT_READ_WRITE : right;
    List<String> common = new ArrayList<>();
    for (String path : ours) {
      if (isBeneathAny(path, theirs)) {
        common.add(path);
      }
    }
    for (String path : theirs) {
      if (isBeneathAny(path, ours) && !common.contains(path)) {
        common.add(path);
      }
    }
    if (common.isEmpty()) {
      faults.add(
          at, "bad-value", "the policies that this one extends have no writable path in common");
    }
    return common;
  }

  private static OptionalLong least(OptionalLong left, OptionalLong right) {
    if (left.isEmpty() || right.isEmpty()) {
      return left.isPresent() ? left : right;
    }
    return OptionalLong.of(Math.min(left.getAsLong(), right.getAsLong()));
  }

  private static OptionalInt least(OptionalInt left, OptionalInt right) {
    if (left.isEmpty() || right.isEmpty()) {
      return left.isPresent() ? left : right;
    }
    return OptionalInt.of(Math.min(left.getAsInt(), right.getAsInt()));
  }

  private static Optional<Duration> least(Optional<Duration> left, Optional<Duration> right) {
    if (left.isEmpty() || right.isEmpty()) {
      return left.or(() -> right);
    }
    return left.get().compareTo(right.get()) <= 0 ? left : right;
  }

  private List<String> readOnly(Optional<Fields> files, Boundary inherited) {
    List<String> paths = new ArrayList<>(inherited.readOnly());
    for (YamlNode.Scalar path : paths(files, "readOnly")) {
      if (!paths.contains(path.text())) {
        paths.add(path.text());
      }
    }
    return paths;
  }

  private List<String> readWrite(Optional<Fields> files, Boundary inherited, boolean narrows) {
    List<YamlNode.Scalar> given = paths(files, "readWrite");
    if (given.isEmpty()) {
      return inherited.readWrite();
    }
    List<String> own = new ArrayList<>();
    for (YamlNode.Scalar path : paths(files, "readOnly")) {
      own.add(path.text());
    }
    List<String> limit =
        inherited.readWrite().isEmpty() ? DEFAULT_READ_WRITE : inherited.readWrite();
    List<String> paths = new ArrayList<>();
    for (YamlNode.Scalar path : given) {
      if (own.contains(path.text())) {
        faults.add(path, "bad-value", "'" + path.text() + "' is both readOnly and readWrite");
      } else if (narrows && !isBeneathAny(path.text(), limit)) {
        faults.add(
            path,
            "widens",
            "'" + path.text() + "' is not writable in what this policy extends (" + limit + ")");
      } else if (narrows && isBeneathAny(path.text(), inherited.readOnly())) {
        faults.add(
            path, "widens", "'" + path.text() + "' is read-only in what this policy extends");
      } else {
        paths.add(path.text());
      }
    }
    return paths;
  }

  private List<YamlNode.Scalar> paths(Optional<Fields> files, String name) {
    if (files.isEmpty()) {
      return List.of();
    }
    List<YamlNode.Scalar> paths = new ArrayList<>();
    for (YamlNode.Scalar path : files.get().texts(name, MAX_PATHS)) {
      if (isNormal(path.text())) {
        paths.add(path);
      } else {
        faults.add(
            path,
            "bad-value",
            "'"
                + path.text()
                + "' must be an absolute path without '.', '..', '//' or a '/' at its end");
      }
    }
    return paths;
  }

  private static boolean isNormal(String path) {
    if (!path.startsWith("/") || path.indexOf('\0') >= 0) {
      return false;
    }
    for (String name : path.substring(1).split("/", -1)) {
      if (name.isEmpty() || name.equals(".") || name.equals("..")) {
        return false;
      }
    }
    return true;
  }

  private static boolean isBeneathAny(String path, List<String> roots) {
    for (String root : roots) {
      if (path.equals(root) || path.startsWith(root + "/")) {
        return true;
      }
    }
    return false;
  }

  private OptionalLong bytes(Optional<Fields> limits, String name, OptionalLong most) {
    Optional<Long> given =
        limit(limits, name, Quantities::bytes, "a size above 0 as '2Gi' or '512MiB'");
    if (given.isEmpty()) {
      return most;
    }
    if (most.isPresent() && given.get() > most.getAsLong()) {
      widens(limits, name, Quantities.bytesText(most.getAsLong()));
      return most;
    }
    return OptionalLong.of(given.get());
  }

  private OptionalInt cpu(Optional<Fields> limits, OptionalInt most) {
    Optional<Integer> given =
        limit(limits, "cpu", Quantities::cpuMillis, "a number of cores as '2', '0.5' or '500m'");
    if (given.isEmpty()) {
      return most;
    }
    if (most.isPresent() && given.get() > most.getAsInt()) {
      widens(limits, "cpu", most.getAsInt() + "m");
      return most;
    }
    return OptionalInt.of(given.get());
  }

  private OptionalInt pids(Optional<Fields> limits, OptionalInt most) {
    Optional<Integer> given =
        limit(
            limits,
            "pids",
            text -> Quantities.count(text, MAX_PIDS),
            "a whole number between 1 and " + MAX_PIDS);
    if (given.isEmpty()) {
      return most;
    }
    if (most.isPresent() && given.get() > most.getAsInt()) {
      widens(limits, "pids", Integer.toString(most.getAsInt()));
      return most;
    }
    return OptionalInt.of(given.get());
  }

  private Optional<Duration> lifetime(Optional<Fields> limits, Optional<Duration> most) {
    Optional<Duration> given =
        limit(limits, "lifetime", Quantities::duration, "a duration as '90s', '15m' or '2h'");
    if (given.isEmpty()) {
      return most;
    }
    if (most.isPresent() && given.get().compareTo(most.get()) > 0) {
      widens(limits, "lifetime", most.get().toSeconds() + "s");
      return most;
    }
    return given;
  }

  private Isolation isolation(Fields boundary, Isolation inherited) {
    Optional<YamlNode.Scalar> given = boundary.quantity("isolation");
    if (given.isEmpty()) {
      return inherited;
    }
    for (Isolation isolation : Isolation.values()) {
      if (isolation.wireName().equals(given.get().text())) {
        if (isolation.and(inherited) != isolation) {
          faults.add(
              given.get(),
              "widens",
              "'isolation' is weaker than what this policy extends has: " + inherited.wireName());
          return inherited;
        }
        return isolation;
      }
    }
    faults.add(
        given.get(),
        "bad-value",
        "'"
            + given.get().text()
            + "' is not an isolation: standard (the host's kernel, held in), strong (a kernel of"
            + " its own)");
    return inherited;
  }

  private <T> Optional<T> limit(
      Optional<Fields> limits, String name, Function<String, Optional<T>> parse, String right) {
    Optional<YamlNode.Scalar> given = limits.flatMap(fields -> fields.quantity(name));
    Optional<T> value = given.map(YamlNode.Scalar::text).flatMap(parse);
    if (given.isPresent() && value.isEmpty()) {
      faults.add(
          given.get(),
          "bad-value",
          "'" + given.get().text() + "' is not " + right + " ('" + name + "')");
    }
    return value;
  }

  private void widens(Optional<Fields> limits, String name, String most) {
    limits.ifPresent(fields ->
        faults.add(
            fields.at(name),
            "widens",
            "'" + name + "' is more than what this policy extends has: " + most));
  }
}
