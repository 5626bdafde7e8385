package dev.foredeck.cli;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/// A stream as a server sent it, in parts: what a test plays, cuts and begins again.
final class Recording {
  private Recording() {}

  /// Each with the empty line that ends it; the first is not an event but the server's `retry`.
  static List<String> parts() {
    try (InputStream in = Recording.class.getResourceAsStream("recorded.sse")) {
      if (in == null) {
        throw new IllegalStateException("no recording");
      }
      String text = new String(in.readAllBytes(), StandardCharsets.UTF_8);
      List<String> parts = new ArrayList<>();
      for (String part : text.split("\n\n")) {
        if (!part.isBlank()) {
          parts.add(part + "\n\n");
        }
      }
      return parts;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
