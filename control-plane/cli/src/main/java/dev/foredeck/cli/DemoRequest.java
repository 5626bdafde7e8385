package dev.foredeck.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.List;

/// The one request of the demo.
final class DemoRequest {
  static final String CHART = "chart.png";

  /// In no policy's list; `example.net` belongs to nobody (RFC 2606).
  static final String DENIED_HOST = "collector.example.net";

  private static final ObjectMapper JSON =
      new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);

  private DemoRequest() {}

  /// @param pages to fetch, the first that answers
  /// @param label of the sandbox, under the key `demo`
  static byte[] body(List<String> pages, String label) {
    ObjectNode body = JSON.createObjectNode();
    body.put("policy", "default").put("ttl", "5m").put("destroy", "on-exit");
    body.putObject("labels").put("demo", label);
    body.putObject("env")
        .put("DEMO_PAGE", String.join(" ", pages))
        .put("DEMO_DENIED", "http://" + DENIED_HOST + "/upload");
    body.putArray("files").addObject().put("path", "data.csv").put("content", text("data.csv"));
    body.putObject("run").put("language", "python").put("code", text("demo.py"));
    body.putArray("outputs").add(CHART);
    try {
      return JSON.writeValueAsBytes(body);
    } catch (JsonProcessingException e) {
      throw new IllegalStateException("a tree of our own is JSON", e);
    }
  }

  static byte[] resource(String name) {
    try (InputStream in = DemoRequest.class.getResourceAsStream("demo/" + name)) {
      if (in == null) {
        throw new IllegalStateException("the CLI was built without demo/" + name);
      }
      return in.readAllBytes();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static String text(String name) {
    return new String(resource(name), StandardCharsets.UTF_8);
  }

  static long programLines() {
    return text("demo.py").lines().count();
  }
}
