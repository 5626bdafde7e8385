package dev.foredeck.policy;

import java.util.ArrayList;
import java.util.List;

/// A glob over a path: `*` and `?` stay within one name, `**` is any number of names, none
/// included. Matching goes back to the last star only, so its time is the product of the two
/// lengths at most.
final class PathGlob {
  private final String text;
  private final List<String> names;

  private PathGlob(String text, List<String> names) {
    this.text = text;
    this.names = names;
  }

  /// @throws IllegalArgumentException whose message says what is wrong
  static PathGlob parse(String text) {
    if (text.isEmpty()) {
      throw new IllegalArgumentException("a path must not be empty; '**' is every path");
    }
    if (text.indexOf('\0') >= 0) {
      throw new IllegalArgumentException("a path has no NUL");
    }
    List<String> names = names(text);
    for (String name : names) {
      if (name.isEmpty() || name.equals(".") || name.equals("..")) {
        throw new IllegalArgumentException(
            "a path has no empty name, '.' or '..': it is compared with a normalised one");
      }
      if (name.contains("**") && !name.equals("**")) {
        throw new IllegalArgumentException("'**' stands alone between two '/'");
      }
    }
    return new PathGlob(text, names);
  }

  private static List<String> names(String path) {
    List<String> names = new ArrayList<>();
    int start = path.startsWith("/") ? 1 : 0;
    if (start == 1) {
      names.add("/");
    }
    while (true) {
      int slash = path.indexOf('/', start);
      if (slash < 0) {
        names.add(path.substring(start));
        return names;
      }
      names.add(path.substring(start, slash));
      start = slash + 1;
    }
  }

  boolean matches(String path) {
    List<String> given = names(path);
    int pattern = 0;
    int at = 0;
    int star = -1;
    int starAt = 0;
    while (at < given.size()) {
      if (pattern < names.size() && names.get(pattern).equals("**") && isRelative(given, at)) {
        star = pattern++;
        starAt = at;
      } else if (pattern < names.size() && matchesName(names.get(pattern), given.get(at))) {
        pattern++;
        at++;
      } else if (star >= 0) {
        pattern = star + 1;
        at = ++starAt;
      } else {
        return false;
      }
    }
    while (pattern < names.size() && names.get(pattern).equals("**")) {
      pattern++;
    }
    return pattern == names.size();
  }

  /// `**` does not step over the root: `**` is every path in the workspace and no other.
  private static boolean isRelative(List<String> given, int at) {
    return !given.get(at).equals("/");
  }

  private static boolean matchesName(String pattern, String name) {
    int p = 0;
    int n = 0;
    int star = -1;
    int starAt = 0;
    while (n < name.length()) {
      if (p < pattern.length() && pattern.charAt(p) == '*') {
        star = p++;
        starAt = n;
      } else if (p < pattern.length()
          && (pattern.charAt(p) == '?' || pattern.charAt(p) == name.charAt(n))) {
        p++;
        n++;
      } else if (star >= 0) {
        p = star + 1;
        n = ++starAt;
      } else {
        return false;
      }
    }
    while (p < pattern.length() && pattern.charAt(p) == '*') {
      p++;
    }
    return p == pattern.length();
  }

  @Override
  public String toString() {
    return text;
  }
}
