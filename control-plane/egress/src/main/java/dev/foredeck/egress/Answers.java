package dev.foredeck.egress;

import java.nio.charset.StandardCharsets;

/// What the gateway itself says to a sandbox: plain text for the person or the agent that reads it,
/// a status line for the clients that show nothing else, and a TLS alert where HTTP is over.
final class Answers {
  /// Fatal, `unrecognized_name`: what a TLS client is told when its server name is not the one it
  /// asked the tunnel for.
  static final byte[] UNRECOGNIZED_NAME = {21, 3, 3, 0, 2, 2, 112};

  static final byte[] ESTABLISHED =
      "HTTP/1.1 200 Connection established\r\n\r\n".getBytes(StandardCharsets.US_ASCII);

  private static final int MAX_PHRASE = 120;

  private Answers() {}

  /// @param rule the rule of the flow
  /// @param asked what was asked for; empty where that is not known
  static byte[] refusal(Refusal refusal, String rule, String asked) {
    StringBuilder body = new StringBuilder();
    if (refusal.isDenied()) {
      body.append("Foredeck denied this");
    } else {
      body.append("Foredeck could not do this");
    }
    if (!asked.isEmpty()) {
      body.append(": ").append(asked);
    }
    body.append("\nrule: ").append(rule).append("\nreason: ").append(refusal.reason()).append('\n');
    String remedy = remedy(refusal);
    if (!remedy.isEmpty()) {
      body.append(remedy).append('\n');
    }
    byte[] text = body.toString().getBytes(StandardCharsets.UTF_8);
    StringBuilder head = new StringBuilder("HTTP/1.1 ").append(refusal.status()).append(' ');
    head.append(visible(phrase(refusal, rule))).append("\r\n");
    if (refusal.isDenied()) {
      head.append("x-foredeck-denied-by: ").append(visible(rule)).append("\r\n");
    }
    if (refusal.status() == 503) {
      head.append("retry-after: 1\r\n");
    }
    head.append("content-type: text/plain; charset=utf-8\r\ncontent-length: ")
        .append(text.length)
        .append("\r\ncache-control: no-store\r\nconnection: close\r\n\r\n");
    byte[] headBytes = head.toString().getBytes(StandardCharsets.US_ASCII);
    byte[] answer = new byte[headBytes.length + text.length];
    System.arraycopy(headBytes, 0, answer, 0, headBytes.length);
    System.arraycopy(text, 0, answer, headBytes.length, text.length);
    return answer;
  }

  private static String phrase(Refusal refusal, String rule) {
    if (refusal.isDenied()) {
      return "Denied by Foredeck (" + rule + "): " + refusal.reason();
    }
    return "Foredeck: " + refusal.reason();
  }

  private static String remedy(Refusal refusal) {
    if (!refusal.isDenied()) {
      return "";
    }
    return switch (refusal.rule()) {
      case "private-address" ->
          "to get it allowed: only the operator's configuration can pin a host to an address that"
              + " is not public (an egress pin); no policy can";
      case "bad-request" -> "to get it allowed: send a request that follows RFC 9112 to the letter";
      case "sni-mismatch" ->
          "to get it allowed: the TLS server name must be the host of the CONNECT";
      case "not-tls" -> "to get it allowed: a tunnel carries TLS only; plain http needs no CONNECT";
      case "limit" ->
          "to get it allowed: wait, ask for less, or ask the operator for a higher limit";
      case "unavailable" -> "to get it allowed: try again; the gateway denies until it can ask";
      case "unresolved" -> "to get it allowed: check the name; the gateway resolves it, not you";
      default ->
          "to get it allowed: the owner of this sandbox's policy adds the host to a rule under"
              + " egress, and the sandbox's network.allow, where it has one, must name it too";
    };
  }

  /// As much of a text as a head may hold.
  private static String visible(String text) {
    StringBuilder visible = new StringBuilder();
    for (int i = 0; i < text.length() && visible.length() < MAX_PHRASE; i++) {
      char c = text.charAt(i);
      visible.append(c >= 0x20 && c < 0x7f ? c : '?');
    }
    return visible.toString();
  }
}
