package dev.foredeck.benchmarks;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.LocalDate;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.List;

/// One table of times and a list of what is no time.
final class Report {
  private final String title;
  private final String command;
  private final List<String> rows = new ArrayList<>();
  private final List<String> notes = new ArrayList<>();

  Report(String title, String command) {
    this.title = title;
    this.command = command;
  }

  void row(Samples samples, String budget) {
    rows.add(samples.row(budget));
    System.err.println("bench: " + rows.getLast());
  }

  void note(String note) {
    notes.add(note);
    System.err.println("bench: " + note);
  }

  void write(Path file) throws IOException {
    List<String> lines = new ArrayList<>();
    lines.add("# " + title);
    lines.add("");
    lines.add(
        "Made by `"
            + command
            + "`; do not edit. One run, one machine, baselines from the same run. Times in"
            + " milliseconds. Where n is below 100, p99 is the greatest of them.");
    lines.add("");
    lines.add("Machine: " + Host.machine() + ". Date: " + LocalDate.now(ZoneOffset.UTC) + ".");
    lines.add("");
    lines.add("| what | n | p50 | p90 | p99 | budget |");
    lines.add("| --- | --- | --- | --- | --- | --- |");
    lines.addAll(rows);
    lines.add("");
    notes.forEach(note -> lines.add("- " + note));
    if (file.getParent() != null) {
      Files.createDirectories(file.getParent());
    }
    Files.write(file, lines);
    lines.forEach(System.out::println);
  }
}
