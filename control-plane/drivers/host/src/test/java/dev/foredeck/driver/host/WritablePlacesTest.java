package dev.foredeck.driver.host;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.policy.Boundary;
import dev.foredeck.policy.Isolation;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class WritablePlacesTest {
  private static final Resources RESOURCES = new Resources(1000, 256L << 20, 64L << 20, 128);

  private static Boundary files(List<String> readOnly, List<String> readWrite) {
    return new Boundary(
        readOnly,
        readWrite,
        OptionalLong.empty(),
        OptionalLong.empty(),
        OptionalInt.empty(),
        OptionalInt.empty(),
        Optional.empty(),
        Isolation.STANDARD);
  }

  @Test
  void aBoundaryThatSaysNothingGetsTheDefault() throws Exception {
    assertThat(WritablePlaces.of(Boundary.NONE).paths())
        .containsExactlyInAnyOrderElementsOf(WritablePlaces.OFFERED);
  }

  @Test
  void onlyWhatIsListedIsWritable() throws Exception {
    assertThat(WritablePlaces.of(files(List.of(), List.of("/workspace"))).paths())
        .containsExactly("/workspace");
    assertThat(WritablePlaces.of(files(List.of(), List.of("/workspace", "/workspace/out"))).paths())
        .containsExactly("/workspace");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "/usr",
        "/",
        "/workspace2",
        "/workspace/out",
        "workspace",
        "/workspace/../etc",
        ""
      })
  void refusesToMakeWritableWhatItCannot(String path) {
    assertThatThrownBy(() -> WritablePlaces.of(files(List.of(), List.of(path))))
        .isInstanceOf(DriverException.Refused.class)
        .hasMessageContaining("readWrite");
  }

  @ParameterizedTest
  @ValueSource(strings = {"/workspace", "/workspace/.git", "/tmp", "/dev", "/", "etc", "/a/../b"})
  void refusesToProtectWhatIsWritable(String path) {
    assertThatThrownBy(() -> WritablePlaces.of(files(List.of(path), List.of())))
        .isInstanceOf(DriverException.Refused.class)
        .hasMessageContaining("readOnly");
  }

  @Test
  void theLongerPathWinsWhereThePolicyNamesBoth() throws Exception {
    assertThat(WritablePlaces.of(files(List.of("/", "/tmp"), List.of("/workspace"))).paths())
        .containsExactly("/workspace");
  }

  @Test
  void refusesMoreThanTheBoundaryAndLessThanAnAgentNeeds() {
    Boundary small =
        new Boundary(
            List.of(),
            List.of(),
            OptionalLong.of(128L << 20),
            OptionalLong.empty(),
            OptionalInt.empty(),
            OptionalInt.empty(),
            Optional.empty(),
            Isolation.STANDARD);
    assertThatThrownBy(() -> WritablePlaces.check(RESOURCES, small))
        .isInstanceOf(DriverException.Refused.class)
        .hasMessageContaining("memory");
    assertThatThrownBy(() ->
            WritablePlaces.check(new Resources(1000, 256L << 20, 64L << 20, 8), Boundary.NONE))
        .isInstanceOf(DriverException.Refused.class)
        .hasMessageContaining("pids");
  }
}
