package dev.foredeck.core;

import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.TreeMap;

/// The signals that a client may send, by name without `SIG`: their Linux numbers (x86-64 and arm64
/// alike).
public final class Signals {
  private static final Map<String, Integer> NUMBERS =
      new TreeMap<>(
          Map.of(
              "HUP", 1, "INT", 2, "QUIT", 3, "KILL", 9, "USR1", 10, "USR2", 12, "TERM", 15, "CONT",
              18, "STOP", 19, "WINCH", 28));

  private Signals() {}

  public static OptionalInt number(String name) {
    return Optional.ofNullable(NUMBERS.get(name)).stream().mapToInt(n -> n).findFirst();
  }

  public static String names() {
    return String.join(", ", NUMBERS.keySet());
  }
}
