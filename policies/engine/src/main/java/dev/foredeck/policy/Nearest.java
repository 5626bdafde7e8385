package dev.foredeck.policy;

import java.util.Collection;
import java.util.Optional;

/// Finds what somebody probably meant.
final class Nearest {
  private static final int MAX_LENGTH = 64;

  private Nearest() {}

  /// `; did you mean 'x'?`, or nothing where no candidate is near.
  static String suggestion(String written, Collection<String> candidates) {
    return find(written, candidates).map(near -> "; did you mean '" + near + "'?").orElse("");
  }

  static Optional<String> find(String written, Collection<String> candidates) {
    if (written.isEmpty() || written.length() > MAX_LENGTH) {
      return Optional.empty();
    }
    String best = "";
    int bestDistance = Math.max(1, written.length() / 3) + 1;
    for (String candidate : candidates) {
      int distance = distance(written, candidate);
      if (distance < bestDistance) {
        best = candidate;
        bestDistance = distance;
      }
    }
    if (best.isEmpty()) {
      return Optional.empty();
    }
    return Optional.of(best);
  }

  /// Edits between two words where swapping two neighbours is one edit; case costs nothing.
  static int distance(String left, String right) {
    int[][] cost = new int[left.length() + 1][right.length() + 1];
    for (int i = 0; i <= left.length(); i++) {
      cost[i][0] = i;
    }
    for (int j = 0; j <= right.length(); j++) {
      cost[0][j] = j;
    }
    for (int i = 1; i <= left.length(); i++) {
      for (int j = 1; j <= right.length(); j++) {
        int change = same(left, i, right, j) ? 0 : 1;
        int least =
            Math.min(cost[i - 1][j - 1] + change, Math.min(cost[i - 1][j] + 1, cost[i][j - 1] + 1));
        if (i > 1 && j > 1 && same(left, i, right, j - 1) && same(left, i - 1, right, j)) {
          least = Math.min(least, cost[i - 2][j - 2] + 1);
        }
        cost[i][j] = least;
      }
    }
    return cost[left.length()][right.length()];
  }

  private static boolean same(String left, int i, String right, int j) {
    return Character.toLowerCase(left.charAt(i - 1)) == Character.toLowerCase(right.charAt(j - 1));
  }
}
