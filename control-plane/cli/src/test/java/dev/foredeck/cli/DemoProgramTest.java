package dev.foredeck.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class DemoProgramTest {
  @TempDir private Path folder;

  private String python(List<String> args) throws Exception {
    ProcessBuilder builder = new ProcessBuilder(args);
    builder.directory(folder.toFile()).redirectErrorStream(true);
    builder.environment().put("DEMO_PAGE", "http://127.0.0.1:9/");
    builder.environment().put("DEMO_DENIED", "http://127.0.0.1:9/");
    builder.environment().put("PYTHONIOENCODING", "utf-8");
    builder.environment().put("no_proxy", "*");
    Process process = builder.start();
    String text = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    return process.waitFor() + "\n" + text;
  }

  private Path unpacked(String name) throws Exception {
    return Files.write(folder.resolve(name), DemoRequest.resource(name));
  }

  @Test
  void theSalesAreWhatTheirGeneratorWrites() throws Exception {
    Path generator = unpacked("make_data.py");

    assertThat(python(List.of("python3", generator.toString())))
        .isEqualTo("0\n" + new String(DemoRequest.resource("data.csv"), StandardCharsets.UTF_8));
  }

  @Test
  void saysWhatDidNotWorkAndEndsWithOne() throws Exception {
    unpacked("data.csv");
    Path program = unpacked("demo.py");

    assertThat(python(List.of("python3", "-u", program.toString())))
        .startsWith("1\n")
        .contains("best month: 2024-12")
        .contains("2024-03  west")
        .contains("http://127.0.0.1:9/ did not answer")
        .contains("Not everything went as it should.")
        .doesNotContain("Traceback");
    assertThat(folder.resolve("chart.png")).exists();
  }

  @Test
  void usesTheStandardLibraryAlone() {
    String program = new String(DemoRequest.resource("demo.py"), StandardCharsets.UTF_8);

    assertThat(program.lines().filter(line -> line.matches("(import|from) .*")))
        .containsExactly(
            "import csv",
            "import math",
            "import os",
            "import random",
            "import re",
            "import statistics",
            "import struct",
            "import sys",
            "import time",
            "import urllib.error",
            "import urllib.request",
            "import zlib");
  }
}
