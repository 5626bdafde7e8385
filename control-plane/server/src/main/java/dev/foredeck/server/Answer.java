package dev.foredeck.server;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Json;
import dev.foredeck.core.Problem;
import dev.foredeck.core.Problem.Violation;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/// An error as HTTP says it (RFC 9457). Core's problems become one in a single switch; those of
/// HTTP itself (wrong method, oversized head) are made here.
///
/// @param headers that belong to the status, as `Allow`
/// @param more members beside the standard ones
record Answer(
    int status,
    String code,
    String title,
    String detail,
    List<Violation> violations,
    Map<String, String> headers,
    Map<String, Object> more) {

  private static final String TYPE = "https://foredeck.dev/problems/";

  Answer {
    violations = List.copyOf(violations);
    headers = Map.copyOf(headers);
    more = new TreeMap<>(more);
  }

  /// Ends a request with an answer of HTTP's own. No stack trace: it is an answer, not a bug.
  static final class AnswerException extends RuntimeException {
    private static final long serialVersionUID = 1L;
    private final transient Answer answer;

    AnswerException(Answer answer) {
      super(answer.code() + ": " + answer.detail(), null, false, false);
      this.answer = answer;
    }

    Answer answer() {
      return answer;
    }
  }

  static Answer of(Problem problem) {
    return switch (problem) {
      case Problem.Invalid p ->
          new Answer(
              400,
              p.code(),
              "The request is not valid",
              p.detail(),
              p.violations(),
              Map.of(),
              Map.of());
      case Problem.Unauthenticated _ ->
          // One text for every cause: the answer must not tell an unknown key from a revoked one.
          plain(
              401,
              "unauthenticated",
              "A valid API key is required",
              "send `Authorization: Bearer <key>` with a key that is known and not revoked",
              Map.of("WWW-Authenticate", "Bearer realm=\"foredeck\""));
      case Problem.Forbidden p ->
          plain(403, p.code(), "This key may not do that", p.detail(), Map.of());
      case Problem.Denied p ->
          new Answer(
              403,
              p.code(),
              "A policy denies this call",
              p.detail(),
              List.of(),
              Map.of(),
              Map.of(
                  "sandbox",
                  p.sandbox().value(),
                  "call",
                  p.call().value(),
                  "policy",
                  p.policy(),
                  "rules",
                  p.rules()));
      case Problem.NotFound p ->
          plain(404, p.code(), "There is no such thing", p.detail(), Map.of());
      case Problem.Conflict p ->
          plain(409, p.code(), "The present state does not admit it", p.detail(), Map.of());
      case Problem.TooLarge p -> plain(413, p.code(), "Too large", p.detail(), Map.of());
      case Problem.Capacity p ->
          plain(429, p.code(), "A limit is reached for now", p.detail(), retry(p.retryAfter()));
      case Problem.Unavailable p ->
          plain(503, p.code(), "Not available for now", p.detail(), retry(p.retryAfter()));
      case Problem.Internal p ->
          plain(500, p.code(), "A fault of Foredeck's own", p.detail(), Map.of());
    };
  }

  static Answer internal() {
    return of(
        new Problem.Internal(
            "something failed inside; the operator finds it in the log by the trace"));
  }

  static Answer noRoute(String path) {
    return plain(
        404,
        "no-such-route",
        "There is no such thing",
        "nothing is served at " + path + "; /openapi.json lists what is",
        Map.of());
  }

  static Answer wrongMethod(String method, String allow) {
    return plain(
        405,
        "method-not-allowed",
        "This path does not know the method",
        method + " is not served here; " + allow + " is",
        Map.of("Allow", allow));
  }

  static Answer slowBody() {
    return plain(
        408,
        "slow-body",
        "The body did not arrive in time",
        "send the body without pausing",
        Map.of());
  }

  static Answer wrongContentType(String given) {
    return plain(
        415,
        "unsupported-media-type",
        "The body's type is not supported",
        "send `Content-Type: application/json` without a Content-Encoding, not " + given,
        Map.of());
  }

  static Answer malformed(String detail) {
    return plain(400, "malformed-request", "This is not a valid HTTP request", detail, Map.of());
  }

  static Answer headTooLarge(int limit) {
    return plain(
        431,
        "head-too-large",
        "The request head is too large",
        "request line and headers may have " + limit + " bytes together",
        Map.of());
  }

  static Answer uriTooLong(int limit) {
    return plain(
        414, "uri-too-long", "The URL is too long", "it may have " + limit + " bytes", Map.of());
  }

  AnswerException exception() {
    return new AnswerException(this);
  }

  /// The `application/problem+json` body.
  ObjectNode json(String trace) {
    ObjectNode json =
        Json.object()
            .put("type", TYPE + code)
            .put("title", title)
            .put("status", status)
            .put("detail", detail)
            .put("code", code);
    if (!violations.isEmpty()) {
      ArrayNode list = json.putArray("violations");
      for (Violation violation : violations) {
        list.addObject()
            .put("pointer", violation.pointer())
            .put("code", violation.code())
            .put("message", violation.message());
      }
    }
    for (Map.Entry<String, Object> member : more.entrySet()) {
      switch (member.getValue()) {
        case List<?> values ->
            json.set(member.getKey(), Json.strings(values.stream().map(String::valueOf).toList()));
        case Object value -> json.put(member.getKey(), value.toString());
      }
    }
    return json.put("trace", trace);
  }

  private static Answer plain(
      int status, String code, String title, String detail, Map<String, String> headers) {
    return new Answer(status, code, title, detail, List.of(), headers, Map.of());
  }

  /// In whole seconds, at least one.
  private static Map<String, String> retry(Duration after) {
    return Map.of("Retry-After", Long.toString(Math.max(1, after.plusMillis(999).toSeconds())));
  }
}
