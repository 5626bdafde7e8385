package dev.foredeck.egress;

import java.util.Optional;

/// The head of a server's answer.
///
/// @param version the minor version of HTTP/1
/// @param status 100 to 599
/// @param phrase may be empty
record ServerResponse(int version, int status, String phrase, Head head) {

  static ServerResponse from(Head head) throws MalformedHeadException {
    String line = head.startLine();
    boolean shaped =
        line.length() >= 12
            && line.startsWith("HTTP/1.")
            && (line.charAt(7) == '1' || line.charAt(7) == '0')
            && line.charAt(8) == ' '
            && line.chars().skip(9).limit(3).allMatch(c -> c >= '0' && c <= '9')
            && (line.length() == 12 || line.charAt(12) == ' ');
    if (!shaped) {
      throw new MalformedHeadException("the status line is not HTTP/1.1 and three digits");
    }
    int status = Integer.parseInt(line, 9, 12, 10);
    if (status < 100 || status > 599) {
      throw new MalformedHeadException("the status is not between 100 and 599");
    }
    String phrase = line.length() > 13 ? line.substring(13) : "";
    return new ServerResponse(line.charAt(7) - '0', status, phrase, head);
  }

  boolean isInterim() {
    return status < 200;
  }

  /// How the body is framed on the wire. A HEAD, 204 or 304 has none, whatever its fields say.
  Head.Framing body(String method) throws MalformedHeadException {
    Optional<Head.Framing> stated = head.framing();
    if (isInterim() || status == 204 || status == 304 || method.equals("HEAD")) {
      return new Head.Framing.None();
    }
    if (version == 0 && stated.orElse(null) instanceof Head.Framing.Chunked) {
      throw new MalformedHeadException("an HTTP/1.0 answer cannot be chunked");
    }
    return stated.orElse(new Head.Framing.UntilEnd());
  }
}
