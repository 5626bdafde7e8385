package dev.foredeck.server;

import dev.foredeck.core.Problem;
import dev.foredeck.core.Problem.Violation;
import dev.foredeck.core.ProblemException;
import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Optional;

/// The only place where a path that a client wrote becomes one that core sees. What comes out is
/// relative to the workspace, `/`-separated, without `.`, `..`, empty segments, NUL or backslash.
/// The agent resolves it again, beneath the workspace and without following links out; this is the
/// first of two doors.
final class WorkspacePath {
  static final String WORKSPACE = "/workspace";
  static final int PATH_BYTES = dev.foredeck.protocol.Limits.PATH_BYTES - 256;
  private static final int SEGMENT_BYTES = 255;

  /// A path, or what is wrong with it.
  ///
  /// @param fault empty when `path` is good
  record Parsed(String path, String fault) {
    boolean good() {
      return fault.isEmpty();
    }
  }

  private WorkspacePath() {}

  /// @param text from JSON; `.` and the empty text are the workspace itself, where `root` admits it
  static Parsed parse(String text, boolean root) {
    if (text.indexOf('\0') >= 0) {
      return bad("it has a NUL");
    }
    if (text.startsWith("/")) {
      return bad("it is absolute: paths are relative to " + WORKSPACE);
    }
    if (text.indexOf('\\') >= 0) {
      return bad("it has a backslash: segments are separated by `/`");
    }
    if (text.getBytes(StandardCharsets.UTF_8).length > PATH_BYTES) {
      return bad("it is longer than " + PATH_BYTES + " bytes");
    }
    if (!wellFormed(text)) {
      return bad("it is not valid Unicode");
    }
    List<String> kept = new ArrayList<>();
    if (!text.isEmpty()) {
      for (String segment : text.split("/", -1)) {
        String fault = fault(segment);
        if (!fault.isEmpty()) {
          return bad(fault);
        }
        if (!segment.equals(".")) {
          kept.add(segment);
        }
      }
    }
    if (kept.isEmpty() && !root) {
      return bad("it names the workspace itself, not something in it");
    }
    return new Parsed(String.join("/", kept), "");
  }

  /// @param raw the percent-encoded rest of a URL
  static String fromUrl(String raw, boolean root) {
    List<String> segments = new ArrayList<>();
    for (String segment : raw.split("/", -1)) {
      String decoded =
          percentDecoded(segment)
              .orElseThrow(() -> invalid("path:path", "it is not valid percent-encoded UTF-8"));
      if (decoded.indexOf('/') >= 0) {
        throw invalid("path:path", "it has an encoded slash");
      }
      segments.add(decoded);
    }
    return orInvalid(parse(String.join("/", segments), root), "path:path");
  }

  /// @param text an already decoded query parameter
  static String fromQuery(String name, String text) {
    return orInvalid(parse(text, false), "query:" + name);
  }

  /// A working directory: absolute in the sandbox, or relative to the workspace.
  static Parsed directory(String text) {
    if (!text.startsWith("/")) {
      Parsed relative = parse(text, true);
      String path = relative.path().isEmpty() ? WORKSPACE : WORKSPACE + "/" + relative.path();
      return relative.good() ? new Parsed(path, "") : relative;
    }
    Parsed rest = text.equals("/") ? new Parsed("", "") : parse(text.substring(1), true);
    return rest.good() ? new Parsed("/" + rest.path(), "") : rest;
  }

  /// Strict: `%` must be followed by two hexadecimal digits and the bytes must be UTF-8.
  static Optional<String> percentDecoded(String raw) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream(raw.length());
    for (int i = 0; i < raw.length(); i++) {
      char c = raw.charAt(i);
      if (c == '%') {
        if (i + 2 >= raw.length()
            || !HexFormat.isHexDigit(raw.charAt(i + 1))
            || !HexFormat.isHexDigit(raw.charAt(i + 2))) {
          return Optional.empty();
        }
        bytes.write(HexFormat.fromHexDigits(raw, i + 1, i + 3));
        i += 2;
      } else if (c < 0x21 || c > 0x7e) {
        return Optional.empty();
      } else {
        bytes.write(c);
      }
    }
    try {
      return Optional.of(
          StandardCharsets.UTF_8
              .newDecoder()
              .decode(ByteBuffer.wrap(bytes.toByteArray()))
              .toString());
    } catch (CharacterCodingException _) {
      return Optional.empty();
    }
  }

  /// No half of a surrogate pair, which JSON escapes can smuggle in and UTF-8 cannot hold.
  static boolean wellFormed(String text) {
    return StandardCharsets.UTF_8.newEncoder().canEncode(text);
  }

  private static String fault(String segment) {
    if (segment.isEmpty()) {
      return "it has an empty segment";
    }
    String lower = segment.toLowerCase(Locale.ROOT);
    if (lower.replace("%2e", ".").equals("..")) {
      return "it has a `..`";
    }
    if (lower.contains("%00") || lower.contains("%2f") || lower.contains("%5c")) {
      return "it has an encoded NUL, slash or backslash";
    }
    if (segment.getBytes(StandardCharsets.UTF_8).length > SEGMENT_BYTES) {
      return "a segment is longer than " + SEGMENT_BYTES + " bytes";
    }
    return "";
  }

  private static Parsed bad(String fault) {
    return new Parsed("", fault);
  }

  private static String orInvalid(Parsed parsed, String pointer) {
    if (!parsed.good()) {
      throw invalid(pointer, parsed.fault());
    }
    return parsed.path();
  }

  private static ProblemException invalid(String pointer, String fault) {
    return new ProblemException(
        new Problem.Invalid(
            List.of(new Violation(pointer, "bad-value", "this path is refused: " + fault))));
  }
}
