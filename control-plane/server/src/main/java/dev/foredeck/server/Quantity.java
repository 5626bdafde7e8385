package dev.foredeck.server;

import java.math.BigDecimal;
import java.time.Duration;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/// How people write sizes, CPU shares and durations: `512Mi`, `500m`, `1h30m`.
public final class Quantity {
  private static final Pattern SIZE = Pattern.compile("([0-9]{1,15})(Ki|Mi|Gi|Ti|k|M|G|T)?");
  private static final Pattern MILLIS = Pattern.compile("([0-9]{1,7})m");
  private static final Pattern CORES = Pattern.compile("[0-9]{1,4}(\\.[0-9]{1,6})?");
  private static final Pattern DURATION =
      Pattern.compile(
          "(?:([0-9]{1,5})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,8})m(?!s))?(?:([0-9]{1,9})s)?(?:([0-9]{1,12})ms)?");

  private Quantity() {}

  /// Bytes; empty where it is not a size.
  public static OptionalLong size(String text) {
    Matcher m = SIZE.matcher(text);
    if (!m.matches()) {
      return OptionalLong.empty();
    }
    String unit = m.group(2) == null ? "" : m.group(2);
    long factor =
        switch (unit) {
          case "Ki" -> 1L << 10;
          case "Mi" -> 1L << 20;
          case "Gi" -> 1L << 30;
          case "Ti" -> 1L << 40;
          case "k" -> 1_000L;
          case "M" -> 1_000_000L;
          case "G" -> 1_000_000_000L;
          case "T" -> 1_000_000_000_000L;
          default -> 1L;
        };
    try {
      return OptionalLong.of(Math.multiplyExact(Long.parseLong(m.group(1)), factor));
    } catch (ArithmeticException _) {
      return OptionalLong.empty();
    }
  }

  /// Thousandths of a core from `"1"`, `"0.5"` or `"500m"`; empty where it is none of these, or
  /// finer than a thousandth.
  public static OptionalInt cpuMillis(String text) {
    Matcher m = MILLIS.matcher(text);
    if (m.matches()) {
      return OptionalInt.of(Integer.parseInt(m.group(1)));
    }
    if (!CORES.matcher(text).matches()) {
      return OptionalInt.empty();
    }
    try {
      return OptionalInt.of(new BigDecimal(text).movePointRight(3).intValueExact());
    } catch (ArithmeticException _) {
      return OptionalInt.empty();
    }
  }

  /// Of `1h30m`, `60s`, `500ms`: at least one part, larger units first.
  static Optional<Duration> duration(String text) {
    Matcher m = DURATION.matcher(text);
    if (text.isEmpty() || !m.matches()) {
      return Optional.empty();
    }
    return Optional.of(
        Duration.ofDays(part(m, 1))
            .plusHours(part(m, 2))
            .plusMinutes(part(m, 3))
            .plusSeconds(part(m, 4))
            .plusMillis(part(m, 5)));
  }

  /// The shortest exact way to write it: `1Gi`, `512Mi`, `1000`.
  static String writeSize(long bytes) {
    String[] units = {"Ti", "Gi", "Mi", "Ki"};
    for (int i = 0; i < units.length; i++) {
      long factor = 1L << (10 * (units.length - i));
      if (bytes >= factor && bytes % factor == 0) {
        return bytes / factor + units[i];
      }
    }
    return Long.toString(bytes);
  }

  static String writeCpu(int millis) {
    return millis % 1000 == 0 ? Integer.toString(millis / 1000) : millis + "m";
  }

  /// For messages: `1h30m`.
  static String writeDuration(Duration duration) {
    return duration.toString().substring(2).toLowerCase(java.util.Locale.ROOT);
  }

  private static long part(Matcher m, int group) {
    return m.group(group) == null ? 0 : Long.parseLong(m.group(group));
  }
}
