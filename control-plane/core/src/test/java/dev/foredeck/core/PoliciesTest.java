package dev.foredeck.core;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.kit.World;
import dev.foredeck.core.store.InMemoryStore;
import dev.foredeck.policy.PolicyException;
import java.util.Map;
import org.junit.jupiter.api.Test;

class PoliciesTest {
  @Test
  void reportsTheFaultsOfEveryFileAndKeepsNone() {
    InMemoryStore store = new InMemoryStore();
    Map<String, String> sources =
        Map.of(
            "default",
            World.POLICY,
            "one",
            World.POLICY.replace("name: default", "name: one").replace("rules:", "rulez:"),
            "two",
            World.POLICY.replace("name: default", "name: other"));
    assertThatThrownBy(() -> new Policies(sources, store))
        .isInstanceOfSatisfying(
            PolicyException.class,
            e ->
                assertThat(e.faults())
                    .extracting(PolicyException.Fault::file)
                    .contains("one.yaml", "two.yaml")
                    .doesNotContain("default.yaml"));
    Policies good = new Policies(Map.of("default", World.POLICY), store);
    assertThat(good.names()).containsExactly("default");
  }
}
