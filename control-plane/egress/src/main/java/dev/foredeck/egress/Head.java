package dev.foredeck.egress;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;

/// The head of an HTTP/1.1 message: its start line and its fields. Parsed strictly (RFC 9112
/// without any of its leniencies), since whatever two parsers read differently is a way to smuggle.
///
/// @param startLine visible ASCII and spaces; a reason phrase may hold more
record Head(String startLine, List<Header> fields) {
  /// Fields that speak to the next hop only. Content-Length and Transfer-Encoding are among them
  /// because bodies are framed anew.
  private static final Set<String> HOP_BY_HOP =
      Set.of(
          "connection",
          "content-length",
          "http2-settings",
          "keep-alive",
          "proxy-authenticate",
          "proxy-authentication-info",
          "proxy-authorization",
          "proxy-connection",
          "te",
          "trailer",
          "transfer-encoding",
          "upgrade");

  /// How a body is framed.
  sealed interface Framing {
    record None() implements Framing {}

    record Length(long bytes) implements Framing {}

    record Chunked() implements Framing {}

    /// Until the sender closes.
    record UntilEnd() implements Framing {}
  }

  /// @param head up to and including the empty line
  static Head parse(byte[] head, int maxFields) throws MalformedHeadException {
    String text = new String(head, StandardCharsets.ISO_8859_1);
    if (!text.endsWith("\r\n\r\n")) {
      throw new MalformedHeadException("the head does not end with an empty line");
    }
    int lineEnd = text.indexOf("\r\n");
    String startLine = text.substring(0, lineEnd);
    checkControls(startLine);
    List<Header> fields = new ArrayList<>();
    int start = lineEnd + 2;
    while (true) {
      lineEnd = text.indexOf("\r\n", start);
      if (lineEnd == start) {
        break;
      }
      if (fields.size() == maxFields) {
        throw new MalformedHeadException("the head has more than " + maxFields + " fields");
      }
      fields.add(field(text.substring(start, lineEnd)));
      start = lineEnd + 2;
    }
    if (start + 2 != text.length()) {
      throw new MalformedHeadException("the head goes on after its empty line");
    }
    return new Head(startLine, List.copyOf(fields));
  }

  private static Header field(String line) throws MalformedHeadException {
    char first = line.charAt(0);
    if (first == ' ' || first == '\t') {
      throw new MalformedHeadException("a header field is folded over two lines");
    }
    int colon = line.indexOf(':');
    if (colon < 1) {
      throw new MalformedHeadException("a header field has no name");
    }
    String name = line.substring(0, colon);
    if (!isToken(name)) {
      throw new MalformedHeadException("a header name holds a character that it may not");
    }
    int from = colon + 1;
    int to = line.length();
    while (from < to && isBlank(line.charAt(from))) {
      from++;
    }
    while (to > from && isBlank(line.charAt(to - 1))) {
      to--;
    }
    String value = line.substring(from, to);
    checkControls(value);
    return new Header(name, value);
  }

  private static boolean isBlank(char c) {
    return c == ' ' || c == '\t';
  }

  private static void checkControls(String text) throws MalformedHeadException {
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      if ((c < 0x20 && c != '\t') || c == 0x7f) {
        throw new MalformedHeadException("the head holds a control character");
      }
    }
  }

  static boolean isToken(String text) {
    if (text.isEmpty()) {
      return false;
    }
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      boolean letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
      if (!letter && !(c >= '0' && c <= '9') && "!#$%&'*+-.^_`|~".indexOf(c) < 0) {
        return false;
      }
    }
    return true;
  }

  /// The value of a field that may be there once at most.
  Optional<String> single(String name) throws MalformedHeadException {
    Optional<String> found = Optional.empty();
    for (Header field : fields) {
      if (field.is(name)) {
        if (found.isPresent()) {
          throw new MalformedHeadException("there are two " + name + " fields");
        }
        found = Optional.of(field.value());
      }
    }
    return found;
  }

  boolean has(String name) {
    return fields.stream().anyMatch(field -> field.is(name));
  }

  /// The framing that the fields state, or nothing where they state none. Two statements, even
  /// equal ones, are refused.
  Optional<Framing> framing() throws MalformedHeadException {
    Optional<String> length = single("Content-Length");
    Optional<String> coding = single("Transfer-Encoding");
    if (coding.isPresent()) {
      if (length.isPresent()) {
        throw new MalformedHeadException(
            "there are both a Content-Length and a Transfer-Encoding field");
      }
      if (!coding.get().equalsIgnoreCase("chunked")) {
        throw new MalformedHeadException("the transfer coding is something other than chunked");
      }
      return Optional.of(new Framing.Chunked());
    }
    if (length.isEmpty()) {
      return Optional.empty();
    }
    String digits = length.get();
    boolean plain = digits.chars().allMatch(c -> c >= '0' && c <= '9');
    if (digits.isEmpty() || digits.length() > 18 || !plain) {
      throw new MalformedHeadException("the Content-Length is not a number of at most 18 digits");
    }
    return Optional.of(new Framing.Length(Long.parseLong(digits)));
  }

  /// The fields that go on to the other side: none that speaks to one hop, none that `Connection`
  /// names.
  List<Header> endToEnd() {
    Set<String> named = new TreeSet<>(String.CASE_INSENSITIVE_ORDER);
    for (Header field : fields) {
      if (field.is("Connection") || field.is("Proxy-Connection")) {
        for (String name : field.value().split(",", -1)) {
          named.add(name.strip());
        }
      }
    }
    return fields.stream()
        .filter(field -> !HOP_BY_HOP.contains(field.name().toLowerCase(Locale.ROOT)))
        .filter(field -> !named.contains(field.name()))
        .toList();
  }
}
