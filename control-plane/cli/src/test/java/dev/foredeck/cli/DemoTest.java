package dev.foredeck.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/// The whole command, against a control plane in a process of its own that runs the demo's program
/// with this host's Python.
@Timeout(120)
class DemoTest {
  @TempDir private Path folder;
  private Path scratch = Path.of("");
  private Path current = Path.of("");
  private final ByteArrayOutputStream out = new ByteArrayOutputStream();
  private final ByteArrayOutputStream err = new ByteArrayOutputStream();

  @BeforeEach
  void makeFolders() throws IOException {
    scratch = Files.createDirectory(folder.resolve("scratch"));
    current = Files.createDirectory(folder.resolve("current"));
  }

  private static List<String> java(String main, String... args) {
    List<String> line = new ArrayList<>();
    line.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    line.addAll(List.of("-XX:TieredStopAtLevel=1", "-cp", System.getProperty("java.class.path")));
    line.add(main);
    line.addAll(List.of(args));
    return line;
  }

  private Map<String, String> environment(String fault) {
    String up =
        String.join(
            " ",
            java(FakeControlPlane.class.getName(), fault, "up").stream()
                .map(ShellWords::quote)
                .toList());
    return Map.of("FOREDECK_UP_COMMAND", up, "FOREDECK_DEMO_SCRATCH", scratch.toString());
  }

  private int demo(String fault, String... more) {
    return demoOf(fault, "http://demo.foredeck.internal/", more);
  }

  private int demoOf(String fault, String page, String... more) {
    List<String> args = new ArrayList<>(List.of("demo", "--page", page));
    args.addAll(List.of(more));
    return Main.run(
        new Surroundings(
            environment(fault),
            current,
            new Terminal(new PrintStream(out, true, StandardCharsets.UTF_8), false),
            new PrintStream(err, true, StandardCharsets.UTF_8)),
        args.toArray(String[]::new));
  }

  private String shown() {
    return out.toString(StandardCharsets.UTF_8) + err.toString(StandardCharsets.UTF_8);
  }

  private List<Path> inScratch() throws IOException {
    try (Stream<Path> files = Files.list(scratch)) {
      return files.toList();
    }
  }

  @Test
  void doesTheMainJobShowsItAndCleansUp() throws IOException {
    assertThat(demo("none")).as(this::shown).isZero();

    assertThat(shown())
        .contains("starting the control plane")
        .contains("│ data.csv: 144 rows, 2023-01 to 2024-12")
        .contains("“The harbour office of the demo”")
        .contains("egress   allow GET demo.foredeck.internal:80/  rule demo")
        .contains("egress   deny POST collector.example.net:80/upload  rule default")
        .contains("│     Foredeck denied this")
        .contains("ended    exited with 0  CPU 0.30 s  peak memory 19.1 MiB")
        .contains("✓ a page was fetched through the gateway (demo.foredeck.internal")
        .contains("create to ready ")
        .contains("✓ the control plane stopped with exit code 0")
        .contains("✓ nothing is left")
        .doesNotContain("✗")
        .doesNotContain("a-key-of-the-test")
        .doesNotContain("\u001b");
    assertThat(shown())
        .containsPattern(
            "  curl -sSN http://127.0.0.1:[0-9]+/v1/sandboxes -H \"Authorization: Bearer \\$\\(cat "
                + scratch
                + "/foredeck-demo-[0-9a-f]{8}/admin.key\\)\" -H 'Content-Type: application/json'"
                + " -H 'Accept: text/event-stream' --data-binary @foredeck-demo.json\n");
    assertThat(inScratch()).isEmpty();
    try (Stream<Path> files = Files.list(current)) {
      assertThat(files.map(file -> file.getFileName().toString()))
          .containsExactlyInAnyOrder("chart.png", "foredeck-demo.json");
    }
  }

  @Test
  void leavesAChartThatAnImageReaderReads() throws IOException {
    assertThat(demo("none")).as(this::shown).isZero();

    BufferedImage chart = ImageIO.read(current.resolve("chart.png").toFile());
    assertThat(chart.getWidth()).isEqualTo(1040);
    assertThat(chart.getHeight()).isEqualTo(580);
    Set<Integer> colours = new HashSet<>();
    for (int y = 0; y < chart.getHeight(); y++) {
      for (int x = 0; x < chart.getWidth(); x++) {
        colours.add(chart.getRGB(x, y) & 0xffffff);
      }
    }
    // Paper, ink, the three regions and the trend line.
    assertThat(colours).contains(0xffffff, 0x262c38, 0x3670b5, 0xf29e4c, 0x56a378, 0xc43048);
  }

  @Test
  void replacesALinkByTheChartsNameAndNotWhatItPointsTo() throws IOException {
    Path precious = Files.writeString(folder.resolve("precious"), "x");
    Files.createSymbolicLink(current.resolve("chart.png"), precious);

    assertThat(demo("none")).as(this::shown).isZero();

    assertThat(precious).hasContent("x");
    assertThat(current.resolve("chart.png")).isRegularFile();
  }

  @Test
  void keepsTheDataFolderWhereAsked() throws IOException {
    assertThat(demo("none", "--keep")).as(this::shown).isZero();

    assertThat(shown()).contains("the data folder is kept: " + inScratch().getFirst());
    assertThat(inScratch().getFirst().resolve("admin.key")).exists();
  }

  @Test
  void failsWhereThePageCannotBeFetched() {
    assertThat(demoOf("none", "http://unlisted.example.org/")).isEqualTo(ExitCode.NO);

    assertThat(shown())
        .contains("✗ the program ran to its end (it exited with 1)")
        .contains("✗ a page was fetched through the gateway")
        .contains("✓ nothing is left");
  }

  @Test
  void failsWhereTheRefusalIsNotInTheLogWhateverTheProgramSays() {
    assertThat(demo("records-no-refusal")).isEqualTo(ExitCode.NO);

    assertThat(shown()).contains("✗ the other host was denied").contains("✓ nothing is left");
  }

  @Test
  void failsWhereTheChartDoesNotArrive() {
    assertThat(demo("loses-the-chart")).isEqualTo(ExitCode.NO);

    assertThat(shown()).contains("✗ the chart was copied out (it is a folder)");
    assertThat(current.resolve("chart.png")).doesNotExist();
  }

  @Test
  void failsWhereTheControlPlaneDoesNotStopAsItShould() throws IOException {
    assertThat(demo("exits-badly")).isEqualTo(ExitCode.NO);

    assertThat(shown())
        .contains("✗ the control plane stopped with exit code 5")
        .contains("| a line of the log");
    assertThat(inScratch()).isEmpty();
  }

  @Test
  void showsWhatAControlPlaneSaidThatDoesNotStart() throws IOException {
    assertThat(demo("dies")).isEqualTo(ExitCode.CANNOT);

    assertThat(err.toString(StandardCharsets.UTF_8))
        .contains("the control plane ended with 7 before it was ready")
        .contains("| no runc here\\x1b[2J")
        .doesNotContain("\tat ");
    assertThat(inScratch()).isEmpty();
  }

  @Test
  void cleansUpWhenItIsInterrupted() throws Exception {
    ProcessBuilder builder =
        new ProcessBuilder(
            java(Main.class.getName(), "demo", "--page", "http://demo.foredeck.internal/"));
    builder.environment().putAll(environment("hangs"));
    Path log = folder.resolve("log");
    builder.directory(current.toFile()).redirectErrorStream(true).redirectOutput(log.toFile());
    Process process = builder.start();
    try {
      while (!Files.readString(log).contains("sandbox  ready")) {
        assertThat(process.isAlive()).as(Files.readString(log)).isTrue();
        Thread.sleep(50);
      }
      // Takes the same way as Ctrl-C, which a test run in the background inherits as ignored.
      process.destroy();
      assertThat(process.waitFor(60, TimeUnit.SECONDS)).isTrue();
    } finally {
      process.destroyForcibly();
    }

    assertThat(process.exitValue()).isEqualTo(143);
    assertThat(Files.readString(log))
        .contains("Interrupted.")
        .contains("✓ sandbox sb0123456789abcdefgh destroyed")
        .contains("✓ the control plane stopped with exit code 0")
        .contains("✓ nothing is left");
    assertThat(inScratch()).isEmpty();
  }
}
