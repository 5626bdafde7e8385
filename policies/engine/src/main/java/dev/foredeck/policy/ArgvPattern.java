package dev.foredeck.policy;

import java.util.List;

/// Matches an argv by its first words and by words of the rest.
///
/// @param words the first words; empty for any program. The first is compared with the base name of
///   argv[0] unless it has a slash
/// @param any at least one stands in the rest; empty for no demand
/// @param all every one stands in the rest
/// @param none no one stands in the rest
record ArgvPattern(List<String> words, List<String> any, List<String> all, List<String> none) {

  boolean matches(List<String> argv) {
    if (argv.size() < words.size() || argv.isEmpty()) {
      return false;
    }
    if (!words.isEmpty() && !isProgram(words.getFirst(), argv.getFirst())) {
      return false;
    }
    for (int i = 1; i < words.size(); i++) {
      if (!words.get(i).equals(argv.get(i))) {
        return false;
      }
    }
    return matchesRest(argv, Math.max(1, words.size()));
  }

  private boolean matchesRest(List<String> argv, int from) {
    boolean anyFound = any.isEmpty();
    for (int i = 0; i < any.size() && !anyFound; i++) {
      anyFound = contains(argv, from, any.get(i));
    }
    if (!anyFound) {
      return false;
    }
    for (int i = 0; i < all.size(); i++) {
      if (!contains(argv, from, all.get(i))) {
        return false;
      }
    }
    for (int i = 0; i < none.size(); i++) {
      if (contains(argv, from, none.get(i))) {
        return false;
      }
    }
    return true;
  }

  private static boolean isProgram(String wanted, String given) {
    if (wanted.indexOf('/') >= 0) {
      return wanted.equals(given);
    }
    int start = given.lastIndexOf('/') + 1;
    return given.length() - start == wanted.length() && given.endsWith(wanted);
  }

  private static boolean contains(List<String> argv, int from, String wanted) {
    boolean option = wanted.startsWith("--") && wanted.length() > 2 && wanted.indexOf('=') < 0;
    for (int i = from; i < argv.size(); i++) {
      String word = argv.get(i);
      if (word.equals(wanted)) {
        return true;
      }
      if (option
          && word.length() > wanted.length()
          && word.charAt(wanted.length()) == '='
          && word.startsWith(wanted)) {
        return true;
      }
    }
    return false;
  }
}
