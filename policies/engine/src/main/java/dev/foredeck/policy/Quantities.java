package dev.foredeck.policy;

import java.math.BigDecimal;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;

/// Sizes, durations and shares of a CPU as policies write them.
final class Quantities {
  private static final long MAX_BYTES = 1L << 50;
  private static final long MAX_SECONDS = 366L * 24 * 3600;
  private static final int MAX_CPU_MILLIS = 1_024_000;

  private static final Map<String, Long> SIZE_UNITS =
      Map.ofEntries(
          Map.entry("", 1L),
          Map.entry("B", 1L),
          Map.entry("Ki", 1L << 10),
          Map.entry("Mi", 1L << 20),
          Map.entry("Gi", 1L << 30),
          Map.entry("Ti", 1L << 40),
          Map.entry("KiB", 1L << 10),
          Map.entry("MiB", 1L << 20),
          Map.entry("GiB", 1L << 30),
          Map.entry("TiB", 1L << 40),
          Map.entry("K", 1_000L),
          Map.entry("k", 1_000L),
          Map.entry("M", 1_000_000L),
          Map.entry("G", 1_000_000_000L),
          Map.entry("T", 1_000_000_000_000L),
          Map.entry("KB", 1_000L),
          Map.entry("kB", 1_000L),
          Map.entry("MB", 1_000_000L),
          Map.entry("GB", 1_000_000_000L),
          Map.entry("TB", 1_000_000_000_000L));

  private static final Map<String, Long> MILLIS_UNITS =
      Map.of("ms", 1L, "s", 1_000L, "m", 60_000L, "h", 3_600_000L, "d", 86_400_000L);

  private Quantities() {}

  /// Bytes of `2Gi`, `1MiB`, `1.5G`, `4096`; nothing where it is not a size above 0.
  static Optional<Long> bytes(String text) {
    return scaled(text, SIZE_UNITS).filter(bytes -> bytes <= MAX_BYTES);
  }

  /// `90s`, `15m`, `2h`, `1h30m`.
  static Optional<Duration> duration(String text) {
    long millis = 0;
    int at = 0;
    while (at < text.length()) {
      int unit = at;
      while (unit < text.length() && isDigit(text.charAt(unit))) {
        unit++;
      }
      int end = unit;
      while (end < text.length() && !isDigit(text.charAt(end))) {
        end++;
      }
      Long scale = MILLIS_UNITS.get(text.substring(unit, end));
      if (scale == null || unit == at || unit - at > 9) {
        return Optional.empty();
      }
      millis += Long.parseLong(text.substring(at, unit)) * scale;
      if (millis > MAX_SECONDS * 1_000) {
        return Optional.empty();
      }
      at = end;
    }
    if (millis == 0) {
      return Optional.empty();
    }
    return Optional.of(Duration.ofMillis(millis));
  }

  /// Thousandths of a core of `2`, `0.5`, `500m`.
  static Optional<Integer> cpuMillis(String text) {
    Optional<Long> millis = scaled(text, Map.of("", 1_000L, "m", 1L));
    return millis.filter(value -> value <= MAX_CPU_MILLIS).map(Long::intValue);
  }

  /// A count between 1 and `limit`.
  static Optional<Integer> count(String text, int limit) {
    return scaled(text, Map.of("", 1L)).filter(value -> value <= limit).map(Long::intValue);
  }

  private static Optional<Long> scaled(String text, Map<String, Long> units) {
    int unit = 0;
    while (unit < text.length() && (isDigit(text.charAt(unit)) || text.charAt(unit) == '.')) {
      unit++;
    }
    String digits = text.substring(0, unit);
    Long scale = units.get(text.substring(unit));
    if (scale == null
        || digits.isEmpty()
        || digits.length() > 18
        || !isDigit(digits.charAt(0))
        || digits.endsWith(".")
        || digits.indexOf('.') != digits.lastIndexOf('.')) {
      return Optional.empty();
    }
    try {
      long value = new BigDecimal(digits).multiply(BigDecimal.valueOf(scale)).longValueExact();
      if (value < 1) {
        return Optional.empty();
      }
      return Optional.of(value);
    } catch (ArithmeticException _) {
      return Optional.empty();
    }
  }

  private static boolean isDigit(char c) {
    return c >= '0' && c <= '9';
  }

  /// As short as it can be written: `2Gi`.
  static String bytesText(long bytes) {
    if (bytes % (1L << 30) == 0) {
      return (bytes >> 30) + "Gi";
    }
    if (bytes % (1L << 20) == 0) {
      return (bytes >> 20) + "Mi";
    }
    if (bytes % (1L << 10) == 0) {
      return (bytes >> 10) + "Ki";
    }
    return Long.toString(bytes);
  }
}
