package dev.foredeck.server;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;

/// Finds the route of a request. A path is matched raw, segment by segment, before anything is
/// decoded: an encoded slash cannot move a request to another route.
final class Router {
  private final List<Route> routes;

  Router(List<Route> routes) {
    this.routes = List.copyOf(routes);
  }

  List<Route> routes() {
    return routes;
  }

  /// What became of a look-up.
  sealed interface Match {}

  /// @param parameters raw, as they came
  record Found(Route route, Map<String, String> parameters) implements Match {}

  /// The path is there, the method is not.
  record WrongMethod(String allow) implements Match {}

  record Unknown() implements Match {}

  Match match(String method, String rawPath) {
    List<String> asked = List.of(rawPath.split("/", -1));
    TreeSet<String> allow = new TreeSet<>();
    for (Route route : routes) {
      Map<String, String> parameters = new HashMap<>();
      if (!matches(route.segments(), asked, parameters)) {
        continue;
      }
      if (route.method().equals(method)) {
        return new Found(route, parameters);
      }
      allow.add(route.method());
    }
    return allow.isEmpty() ? new Unknown() : new WrongMethod(String.join(", ", allow));
  }

  /// @param asked begins with the empty segment before the first slash
  private static boolean matches(
      List<String> template, List<String> asked, Map<String, String> parameters) {
    boolean rest = template.getLast().equals("{path}");
    int fixed = rest ? template.size() - 1 : template.size();
    if (!asked.getFirst().isEmpty()
        || (rest ? asked.size() - 1 <= fixed : asked.size() - 1 != fixed)) {
      return false;
    }
    for (int i = 0; i < fixed; i++) {
      String segment = template.get(i);
      String given = asked.get(i + 1);
      if (segment.startsWith("{")) {
        parameters.put(segment.substring(1, segment.length() - 1), given);
      } else if (!segment.equals(given)) {
        return false;
      }
    }
    if (rest) {
      parameters.put(
          "path", String.join("/", new ArrayList<>(asked).subList(fixed + 1, asked.size())));
    }
    return true;
  }
}
