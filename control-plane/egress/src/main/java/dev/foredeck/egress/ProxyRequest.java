package dev.foredeck.egress;

import dev.foredeck.core.Id;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.List;
import java.util.Locale;
import java.util.Optional;

/// What a sandbox asked of its proxy: a tunnel, or one request in absolute form. Anything that
/// could be read in two ways does not become one.
///
/// @param version the minor version of HTTP/1
/// @param target what stands in the request line to the server: origin form, or `*`
/// @param path what policy and log see: the target without its query; empty for a tunnel
record ProxyRequest(
    String method,
    Authority authority,
    String target,
    String path,
    int version,
    Head head,
    Head.Framing body) {
  private static final int MAX_METHOD = 32;
  private static final int HTTP_PORT = 80;

  boolean isTunnel() {
    return method.equals("CONNECT");
  }

  static ProxyRequest from(Head head) throws Refusal {
    try {
      return read(head);
    } catch (MalformedHeadException e) {
      throw Refusal.badRequest(e.getMessage());
    }
  }

  private static ProxyRequest read(Head head) throws MalformedHeadException, Refusal {
    String[] parts = head.startLine().split(" ", -1);
    if (parts.length != 3) {
      throw Refusal.badRequest(
          "the request line is not: method, one space, target, one space, HTTP/1.1");
    }
    String method = parts[0];
    if (!Head.isToken(method) || method.length() > MAX_METHOD) {
      throw Refusal.badRequest(
          "the method is not a token of at most " + MAX_METHOD + " characters");
    }
    for (int i = 0; i < parts[1].length(); i++) {
      char c = parts[1].charAt(i);
      if (c <= 0x20 || c >= 0x7f) {
        throw Refusal.badRequest("the target holds a character that is not visible ASCII");
      }
    }
    int version =
        switch (parts[2]) {
          case "HTTP/1.1" -> 1;
          case "HTTP/1.0" -> 0;
          default -> throw Refusal.badRequest("the version is neither HTTP/1.1 nor HTTP/1.0");
        };
    Head.Framing body = body(head, version);
    if (method.equals("CONNECT")) {
      return tunnel(head, parts[1], version, body);
    }
    return absolute(head, method, parts[1], version, body);
  }

  private static Head.Framing body(Head head, int version) throws MalformedHeadException, Refusal {
    Head.Framing body = head.framing().orElse(new Head.Framing.None());
    if (version == 0 && body instanceof Head.Framing.Chunked) {
      throw Refusal.badRequest("an HTTP/1.0 request cannot be chunked");
    }
    return body;
  }

  private static ProxyRequest tunnel(Head head, String target, int version, Head.Framing body)
      throws MalformedHeadException, Refusal {
    boolean empty = body instanceof Head.Framing.None || body.equals(new Head.Framing.Length(0));
    if (!empty) {
      throw Refusal.badRequest("a CONNECT has no body");
    }
    Authority authority = Authority.parse(target, 0);
    checkHost(head, version, authority, authority.port());
    return new ProxyRequest("CONNECT", authority, "", "", version, head, new Head.Framing.None());
  }

  private static ProxyRequest absolute(
      Head head, String method, String target, int version, Head.Framing body)
      throws MalformedHeadException, Refusal {
    String scheme = "http://";
    if (!target.regionMatches(true, 0, scheme, 0, scheme.length())) {
      throw Refusal.badRequest(notAbsolute(target));
    }
    if (target.indexOf('#') >= 0) {
      throw Refusal.badRequest("the target holds a fragment (a #)");
    }
    int authorityEnd = scheme.length();
    while (authorityEnd < target.length() && "/?".indexOf(target.charAt(authorityEnd)) < 0) {
      authorityEnd++;
    }
    Authority authority =
        Authority.parse(target.substring(scheme.length(), authorityEnd), HTTP_PORT);
    checkHost(head, version, authority, HTTP_PORT);
    String origin = target.substring(authorityEnd);
    if (origin.isEmpty() && method.equals("OPTIONS")) {
      origin = "*";
    } else if (!origin.startsWith("/")) {
      origin = "/" + origin;
    }
    int query = origin.indexOf('?');
    String path = query < 0 ? origin : origin.substring(0, query);
    checkPath(path);
    return new ProxyRequest(method, authority, origin, path, version, head, body);
  }

  private static String notAbsolute(String target) {
    if (target.regionMatches(true, 0, "https://", 0, 8)) {
      return "https goes through CONNECT, not through an absolute target";
    }
    return "this is a proxy: the target is http://host[:port]/path, or the method is CONNECT";
  }

  private static void checkHost(Head head, int version, Authority authority, int defaultPort)
      throws MalformedHeadException, Refusal {
    Optional<String> host = head.single("Host");
    if (host.isEmpty()) {
      if (version == 0) {
        return;
      }
      throw Refusal.badRequest("the Host field is missing");
    }
    if (!Authority.parse(host.get(), defaultPort).equals(authority)) {
      throw Refusal.badRequest("the Host field and the target name different servers");
    }
  }

  /// A path that a server would shorten is refused, so that what policy sees is what is served.
  private static void checkPath(String path) throws Refusal {
    for (String segment : path.split("/", -1)) {
      String dots = segment.toLowerCase(Locale.ROOT).replace("%2e", ".");
      if (dots.equals(".") || dots.equals("..")) {
        throw Refusal.badRequest("the path holds a . or .. segment");
      }
    }
  }

  /// The call that the proxy credential claims to be, or nothing. Anyone in the sandbox can claim
  /// any call: it is for reading the log, and decides nothing.
  static String claimedCall(Head head) {
    List<Header> credentials =
        head.fields().stream().filter(field -> field.is("Proxy-Authorization")).toList();
    if (credentials.size() != 1) {
      return "";
    }
    String value = credentials.getFirst().value();
    if (!value.regionMatches(true, 0, "Basic ", 0, 6)) {
      return "";
    }
    try {
      byte[] plain = Base64.getDecoder().decode(value.substring(6).strip());
      String pair = new String(plain, StandardCharsets.ISO_8859_1);
      int colon = pair.indexOf(':');
      String user = colon < 0 ? pair : pair.substring(0, colon);
      return Id.isValid(user) ? user : "";
    } catch (IllegalArgumentException _) {
      return "";
    }
  }
}
