package dev.foredeck.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.ObjectMapper;
import dev.foredeck.cli.DemoFindings.Part;
import java.io.IOException;
import java.time.Duration;
import java.time.Instant;
import java.util.Set;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.Test;

class DemoFindingsTest {
  static final String CHART_SHA256 =
      "843ac23b1736b4487ec81cf7c07ddd9bb46ae5b7818c2c3843d99d62fa75f3c9";

  private static final ObjectMapper JSON = new ObjectMapper();

  private static DemoFindings after(UnaryOperator<String> change) throws IOException {
    DemoFindings findings = new DemoFindings(Set.of("example.com"));
    for (String part : Recording.parts()) {
      if (part.contains("data: ")) {
        var json = JSON.readTree(change.apply(part.substring(part.indexOf("data: ") + 6)));
        findings.see(
            new LogEvent(
                json.path("seq").asLong(),
                Instant.parse(json.path("time").asText()),
                json.path("type").asText(),
                json.path("sandbox").asText(),
                json.path("call").asText(""),
                json.path("data")));
      }
    }
    return findings;
  }

  private static void onlyFails(DemoFindings findings, int part, String how) {
    for (int i = 0; i < findings.parts().size(); i++) {
      Part one = findings.parts().get(i);
      assertThat(one.done()).as(one.toString()).isEqualTo(i != part);
    }
    assertThat(findings.parts().get(part).how()).contains(how);
  }

  @Test
  void findsEveryPartOfTheMainJobInTheLog() throws IOException {
    DemoFindings findings = after(UnaryOperator.identity());

    assertThat(findings.parts()).hasSize(4).allMatch(Part::done);
    assertThat(findings.chart().orElseThrow()).hasSize(9);
    assertThat(findings.createToReady()).contains(Duration.ofMillis(480));
    assertThat(findings.readyToFirstByte()).contains(Duration.ofMillis(30));
  }

  @Test
  void missesAProgramThatFailed() throws IOException {
    onlyFails(after(e -> e.replace("\"exitCode\":0", "\"exitCode\":1")), 0, "exited with 1");
    onlyFails(
        after(e -> e.replace("\"status\":\"exited\",\"exitCode\":0", "\"status\":\"timeout\"")),
        0,
        "it timeout");
  }

  @Test
  void missesAChartThatDidNotComeOrIsNotWhatTheLogSays() throws IOException {
    onlyFails(
        after(e -> e.replace("\"size\":9", "\"missing\":\"no such file\"")), 1, "no such file");
    onlyFails(after(e -> e.replace(CHART_SHA256, "00")), 1, "do not have the digest");
    onlyFails(after(e -> e.replace("iVBORw0KGgo", "aVBORw0KGgo")), 1, "no PNG");
    onlyFails(after(e -> e.replace("chart.png", "other.png")), 1, "no chart was copied out");
  }

  @Test
  void missesAPageThatWasNotFetched() throws IOException {
    onlyFails(
        after(e -> e.replace("\"host\":\"example.com\"", "\"host\":\"x.org\"")), 2, "no such flow");
  }

  @Test
  void missesARefusalThatIsNotInTheLog() throws IOException {
    onlyFails(
        after(e -> e.replace("\"effect\":\"deny\"", "\"effect\":\"allow\"")), 3, "no such refusal");
  }
}
