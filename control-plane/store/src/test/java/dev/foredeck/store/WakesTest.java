package dev.foredeck.store;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Id;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

final class WakesTest {
  @Test
  void payloadsFitWhatPostgresTakesAndLoseNothing() {
    List<Id> logs =
        IntStream.range(0, 1_000).mapToObj(i -> new Id("sbx" + String.format("%022d", i))).toList();
    List<String> payloads = Wakes.payloads("origin", logs, false);
    assertThat(payloads).allMatch(p -> p.length() < 8_000).allMatch(p -> p.startsWith("origin:"));
    assertThat(
            payloads.stream()
                .flatMap(p -> List.of(p.substring(7).split(",", -1)).stream())
                .map(Id::new))
        .containsExactlyElementsOf(logs);
  }

  @Test
  void everythingIsOneStar() {
    assertThat(Wakes.payloads("o", List.of(), true)).containsExactly("o:*");
  }
}
