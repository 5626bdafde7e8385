package dev.foredeck.core.driver;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.extension.AfterAllCallback;
import org.junit.jupiter.api.extension.AfterTestExecutionCallback;
import org.junit.jupiter.api.extension.ExtensionContext;

/// Writes down what a contract's tests showed of a driver, in `target/contract/<test class>.tsv`,
/// from which `testing/contract-table.py` makes the table in the documents: `promise`, contract,
/// column, test method, `held` or `broken`; and `figure`, contract, column, what, n, least, median
/// and most milliseconds. One per test class.
final class ContractReport implements AfterTestExecutionCallback, AfterAllCallback {
  /// What a contract's test class says of itself.
  interface Subject {
    /// The driver and what distinguishes it, as `local (runsc)`.
    String column();
  }

  private record Promise(String column, String method, boolean held) {}

  private final String contract;
  private final List<Promise> promises = new ArrayList<>();
  private final Map<String, List<Double>> figures = new TreeMap<>();
  private String column = "";

  /// @param contract as `driver`
  ContractReport(String contract) {
    this.contract = contract;
  }

  synchronized void measured(String what, long nanos) {
    figures.computeIfAbsent(what, _ -> new ArrayList<>()).add(nanos / 1e6);
  }

  @Override
  public synchronized void afterTestExecution(ExtensionContext context) {
    column = ((Subject) context.getRequiredTestInstance()).column();
    promises.add(
        new Promise(
            column,
            context.getRequiredTestMethod().getName(),
            context.getExecutionException().isEmpty()));
  }

  @Override
  public synchronized void afterAll(ExtensionContext context) throws IOException {
    List<String> lines = new ArrayList<>();
    for (Promise promise : promises) {
      lines.add(
          String.join(
              "\t",
              "promise",
              contract,
              promise.column(),
              promise.method(),
              promise.held() ? "held" : "broken"));
    }
    figures.forEach((what, millis) -> {
      List<Double> sorted = millis.stream().sorted().toList();
      lines.add(
          String.format(
              Locale.ROOT,
              "figure\t%s\t%s\t%s\t%d\t%.1f\t%.1f\t%.1f",
              contract,
              column,
              what,
              sorted.size(),
              sorted.getFirst(),
              sorted.get(sorted.size() / 2),
              sorted.getLast()));
    });
    Path folder = Files.createDirectories(Path.of("target", "contract"));
    Files.write(folder.resolve(context.getRequiredTestClass().getSimpleName() + ".tsv"), lines);
    promises.clear();
    figures.clear();
  }
}
