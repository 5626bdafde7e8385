package dev.foredeck.cli;

import com.fasterxml.jackson.databind.JsonNode;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/// What the log says about the demo's main job: not what the program claims, but what was recorded
/// outside the sandbox. Not thread-safe.
final class DemoFindings {
  private static final byte[] PNG = {(byte) 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

  /// One part of the main job.
  record Part(String name, boolean done, String how) {}

  private final Set<String> pageHosts;
  private Optional<Instant> requested = Optional.empty();
  private Optional<Instant> ready = Optional.empty();
  private Optional<Instant> firstByte = Optional.empty();
  private Optional<byte[]> chart = Optional.empty();
  private String chartFault = "no chart was copied out";
  private String end = "the call has no end";
  private boolean exitedWithZero;
  private Optional<String> fetched = Optional.empty();
  private Optional<String> denied = Optional.empty();

  /// @param pageHosts of which one is to be fetched
  DemoFindings(Set<String> pageHosts) {
    this.pageHosts = Set.copyOf(pageHosts);
  }

  void see(LogEvent event) {
    switch (event.type()) {
      case "sandbox.phase" -> {
        if (requested.isEmpty()) {
          requested = Optional.of(event.time());
        }
        if (event.text("phase").equals("ready") && ready.isEmpty()) {
          ready = Optional.of(event.time());
        }
      }
      case "output" -> {
        if (firstByte.isEmpty()) {
          firstByte = Optional.of(event.time());
        }
      }
      case "call.output" -> seeChart(event);
      case "call.ended" -> {
        JsonNode exitCode = event.data().path("exitCode");
        end = "it " + event.text("status") + (exitCode.isInt() ? " with " + exitCode : "");
        exitedWithZero =
            event.text("status").equals("exited") && exitCode.isInt() && exitCode.asInt() == 0;
      }
      case "egress.flow" -> seeFlow(event);
      default -> {
        // Shown by the narrator, and no part of the job.
      }
    }
  }

  private void seeChart(LogEvent event) {
    if (!event.text("path").equals(DemoRequest.CHART)) {
      return;
    }
    if (event.data().has("missing")) {
      chartFault = Terminal.harmless(event.text("missing"));
      return;
    }
    byte[] bytes;
    try {
      bytes = Base64.getDecoder().decode(event.text("base64"));
    } catch (IllegalArgumentException e) {
      chartFault = "it is not base64";
      return;
    }
    boolean png = bytes.length > PNG.length && Arrays.equals(Arrays.copyOf(bytes, PNG.length), PNG);
    if (!png) {
      chartFault = "what came is no PNG";
    } else if (!sha256(bytes).equals(event.text("sha256"))) {
      chartFault = "its bytes do not have the digest that the log gives";
    } else {
      chart = Optional.of(bytes);
    }
  }

  private void seeFlow(LogEvent event) {
    boolean allowed = event.text("effect").equals("allow");
    String rule = "rule " + Terminal.harmless(event.text("rule"));
    if (allowed && pageHosts.contains(event.text("host"))) {
      fetched = Optional.of(event.text("host") + ", allowed by " + rule);
    }
    if (!allowed && event.text("host").equals(DemoRequest.DENIED_HOST)) {
      denied = Optional.of(event.text("host") + ", " + rule);
    }
  }

  List<Part> parts() {
    List<Part> parts = new ArrayList<>();
    parts.add(new Part("the program ran to its end", exitedWithZero, end));
    parts.add(
        new Part(
            "the chart was copied out",
            chart.isPresent(),
            chart.map(bytes -> Narrator.size(bytes.length)).orElse(chartFault)));
    parts.add(
        new Part(
            "a page was fetched through the gateway",
            fetched.isPresent(),
            fetched.orElse("the log has no such flow")));
    parts.add(
        new Part(
            "the other host was denied",
            denied.isPresent(),
            denied.orElse("the log has no such refusal")));
    return List.copyOf(parts);
  }

  Optional<byte[]> chart() {
    return chart.map(byte[]::clone);
  }

  Optional<Duration> createToReady() {
    return between(requested, ready);
  }

  Optional<Duration> readyToFirstByte() {
    return between(ready, firstByte);
  }

  private static Optional<Duration> between(Optional<Instant> from, Optional<Instant> to) {
    return from.flatMap(start -> to.map(end -> Duration.between(start, end)));
  }

  private static String sha256(byte[] bytes) {
    try {
      return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every Java has SHA-256", e);
    }
  }
}
