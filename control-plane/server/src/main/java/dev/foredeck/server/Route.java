package dev.foredeck.server;

import java.util.List;
import java.util.Set;

/// One line of the table of what the server answers: the only place that names a path.
///
/// @param template as in the OpenAPI document: `/v1/calls/{id}`; a last `{path}` takes the rest
/// @param query parameters it knows; any other is refused
record Route(
    String method, String template, Access access, Body body, Set<String> query, Handler handler) {

  Route {
    query = Set.copyOf(query);
  }

  /// Who may ask.
  enum Access {
    /// No key needed: health and the contract itself.
    OPEN,
    DEVELOPER,
    OPERATOR
  }

  /// What the request carries.
  enum Body {
    NONE,
    /// A JSON object; an empty body is refused.
    JSON,
    /// A JSON object, or nothing, which is `{}`.
    OPTIONAL_JSON,
    /// Bytes, streamed.
    RAW
  }

  /// The code behind a route, on a virtual thread of its own.
  @FunctionalInterface
  interface Handler {
    void handle(Exchange exchange) throws Exception;
  }

  List<String> segments() {
    return List.of(template.substring(1).split("/", -1));
  }

  /// Method and template, as the committed list and the OpenAPI document name it.
  String name() {
    return method + " " + template;
  }
}
