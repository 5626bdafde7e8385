package dev.foredeck.driver.host;

import dev.foredeck.core.driver.DriverException;
import java.io.IOException;
import java.util.List;

/// What a probe finds: one sentence for every promise that does not hold.
public final class Findings {
  private Findings() {}

  @FunctionalInterface
  public interface Search {
    void run() throws DriverException, IOException;
  }

  /// Runs a search that adds to `findings`, and returns them all. Whatever goes wrong in it is one
  /// too: what was not shown to hold does not hold.
  public static List<String> of(List<String> findings, Search search) {
    try {
      search.run();
    } catch (DriverException e) {
      findings.add(incomplete(String.valueOf(e.getMessage())));
    } catch (IOException | RuntimeException e) {
      findings.add(incomplete(e.toString()));
    }
    return List.copyOf(findings);
  }

  private static String incomplete(String why) {
    return "The probe could not be completed: " + why + ".";
  }
}
