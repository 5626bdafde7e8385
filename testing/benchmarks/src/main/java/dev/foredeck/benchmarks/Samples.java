package dev.foredeck.benchmarks;

import java.util.Arrays;
import java.util.Locale;

/// Times of one thing, in milliseconds.
record Samples(String name, double[] millis) {

  interface Timed {
    void run() throws Exception;
  }

  /// @param warmUp runs that are not counted
  static Samples measure(String name, int warmUp, int n, Timed timed) throws Exception {
    for (int i = 0; i < warmUp; i++) {
      timed.run();
    }
    double[] millis = new double[n];
    for (int i = 0; i < n; i++) {
      long began = System.nanoTime();
      timed.run();
      millis[i] = (System.nanoTime() - began) / 1e6;
    }
    return new Samples(name, millis);
  }

  double percentile(double p) {
    double[] sorted = millis.clone();
    Arrays.sort(sorted);
    return sorted[(int) Math.min(sorted.length - 1, Math.ceil(p / 100 * sorted.length) - 1)];
  }

  /// A row of the report's table.
  String row(String budget) {
    return String.format(
        Locale.ROOT,
        "| %s | %d | %s | %s | %s | %s |",
        name,
        millis.length,
        number(percentile(50)),
        number(percentile(90)),
        number(percentile(99)),
        budget);
  }

  private static String number(double millis) {
    if (millis >= 0.1) {
      return String.format(Locale.ROOT, "%.2f", millis);
    }
    return String.format(Locale.ROOT, "%.4f", millis);
  }
}
