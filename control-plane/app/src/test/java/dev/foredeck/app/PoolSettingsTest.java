package dev.foredeck.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.app.Configuration.ConfigurationException;
import dev.foredeck.core.pool.PoolSetting;
import dev.foredeck.core.pool.PoolSize;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import org.junit.jupiter.api.Test;

class PoolSettingsTest {

  private static PoolSetting silent(Optional<String> template, int floor, int ceiling) {
    return new PoolSetting(
        template,
        Optional.empty(),
        OptionalInt.empty(),
        OptionalLong.empty(),
        OptionalLong.empty(),
        new PoolSize(floor, ceiling));
  }

  @Test
  void keepsOneReadyWhereNothingIsSaid() {
    assertThat(Configuration.of(Map.of(), Map.of()).pools())
        .containsExactly(silent(Optional.empty(), 1, 4));
  }

  @Test
  void readsWhatARequestWouldSay() {
    List<PoolSetting> pools =
        Configuration.of(
                Map.of(),
                Map.of(
                    "FOREDECK_POOLS",
                    "host:2-8, host+policy=offline+cpu=500m+memory=256Mi+disk=64Mi:3"))
            .pools();
    assertThat(pools)
        .containsExactly(
            silent(Optional.of("host"), 2, 8),
            new PoolSetting(
                Optional.of("host"),
                Optional.of("offline"),
                OptionalInt.of(500),
                OptionalLong.of(256L << 20),
                OptionalLong.of(64L << 20),
                new PoolSize(3, 3)));
  }

  @Test
  void canBeSwitchedOff() {
    for (String off : new String[] {"off", "default:0", "host:0-0"}) {
      assertThat(PoolSettings.parse(off)).as(off).isEmpty();
    }
  }

  @Test
  void saysWhichPoolIsWrongAndWhatWouldBeRight() {
    Map<String, String> wrong =
        Map.of(
            "host", "TEMPLATE[+policy=NAME]",
            "host:x", "TEMPLATE[+policy=NAME]",
            "host:4-2", "0 <= FLOOR <= CEILING",
            "host:1-100000", "0 <= FLOOR <= CEILING",
            ":1-2", "names no template",
            "host+memroy=1Gi:1", "is not one of cpu=, disk=, memory=, policy=",
            "host+memory=lots:1", "memory is 'lots': it must be as 512Mi",
            "host+cpu=lots:1", "cpu is 'lots'",
            "host+cpu=1+cpu=2:1", "names cpu twice");
    wrong.forEach((text, why) ->
        assertThatThrownBy(() -> PoolSettings.parse("default:1," + text))
            .as(text)
            .isInstanceOf(ConfigurationException.class)
            .hasMessageContaining("FOREDECK_POOLS holds '" + text + "'")
            .hasMessageContaining(why));
  }
}
