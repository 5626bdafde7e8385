package dev.foredeck.policy;

import dev.foredeck.policy.PolicyException.Fault;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;

/// The faults of one file, collected so that its author sees all of them at once.
final class Faults {
  /// A file that is wrong everywhere is not read to its end.
  static final int MAX_FAULTS = 100;

  private final String file;
  private final List<Fault> found = new ArrayList<>();

  Faults(String file) {
    this.file = file;
  }

  void add(YamlNode at, String code, String message) {
    add(at.line(), at.column(), code, message);
  }

  void add(int line, int column, String code, String message) {
    Fault fault = new Fault(file, line, column, code, message);
    if (found.size() < MAX_FAULTS && !found.contains(fault)) {
      found.add(fault);
    }
  }

  /// Takes over what was found in a file that this one extends.
  void addAll(List<Fault> others) {
    for (Fault other : others) {
      if (found.size() < MAX_FAULTS && !found.contains(other)) {
        found.add(other);
      }
    }
  }

  boolean none() {
    return found.isEmpty();
  }

  /// In the order of the file; those of other files last.
  List<Fault> inOrder() {
    List<Fault> ordered = new ArrayList<>(found);
    ordered.sort(
        Comparator.comparing((Fault fault) -> !fault.file().equals(file))
            .thenComparing(Fault::file)
            .thenComparingInt(Fault::line)
            .thenComparingInt(Fault::column));
    return ordered;
  }
}
