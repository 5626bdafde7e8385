package dev.foredeck.driver.host;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.DriverException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.HashSet;
import java.util.OptionalLong;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// The parts that need neither root nor a runtime.
class HostPartsTest {
  private static final Deadline SOON = Deadline.in(Duration.ofSeconds(30));

  @TempDir Path folder;

  @Test
  void aRunFolderWhoseSocketsNobodyCouldDialIsRefused() {
    assertThatThrownBy(
            () -> new HostPlaces(folder, Path.of("/run/" + "x".repeat(50)), folder, folder, 1, 0))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("107");
    assertThat(HostPlaces.of(folder, folder).runDir().toString())
        .matches("/run/foredeck-[0-9a-f]{8}");
  }

  @Test
  void onlyEmptyRunFoldersAreRemoved() throws Exception {
    Path run = folder.resolve("run");
    HostPlaces places = new HostPlaces(folder, run, folder, folder, 1, 0);
    places.removeEmptyRunFolders();
    Files.createDirectories(run.resolve("empty"));
    places.makeSocketFolder(HostBench.id("alive"));
    places.removeEmptyRunFolders();
    assertThat(run.resolve("empty")).doesNotExist();
    assertThat(places.socketFolder(HostBench.id("alive"))).exists();
    Files.delete(places.socketFolder(HostBench.id("alive")));
    places.removeEmptyRunFolders();
    assertThat(run).doesNotExist();
  }

  @Test
  void noTwoSandboxesShareUsersWhoeverMadeThem() throws Exception {
    UidSlots ours = new UidSlots(folder.resolve("slots"), Path.of("/run/ours"));
    UidSlots theirs = new UidSlots(folder.resolve("slots"), Path.of("/run/theirs"));
    Set<Integer> taken = new HashSet<>();
    for (int i = 0; i < 50; i++) {
      Id id = HostBench.id("slot" + (char) ('a' + i % 26) + i);
      int slot = ours.claim(id);
      assertThat(taken.add(slot)).isTrue();
      assertThat(taken.add(theirs.claim(id))).isTrue();
      assertThat(ours.claim(id)).as("claimed again").isEqualTo(slot);
    }
    assertThat(ours.owners()).hasSize(50);

    Id one = HostBench.id("slota0");
    ours.free(one);
    ours.free(one);

    assertThat(ours.find(one)).isEmpty();
    assertThat(theirs.find(one)).isPresent();
    assertThat(UidSlots.firstUid(UidSlots.COUNT - 1) + UidSlots.RANGE).isPositive();
  }

  @Test
  void readsTheStartOfAProcessWhateverItsName() {
    String fields = " S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 1";

    assertThat(KernelTables.parseStartTicks("7 (a) b) (c)" + fields))
        .isEqualTo(OptionalLong.of(98_765));
    assertThat(KernelTables.parseStartTicks("7 (x)" + fields.replace(" S ", " Z "))).isEmpty();
    assertThat(KernelTables.parseStartTicks("")).isEmpty();
    assertThat(KernelTables.startTicks(ProcessHandle.current().pid())).isPresent();
  }

  @Test
  void aPidThatWasUsedAgainIsAnotherProcess() throws Exception {
    long pid = ProcessHandle.current().pid();
    long ticks = KernelTables.startTicks(pid).orElseThrow();
    String boot = KernelTables.bootId();

    assertThat(new Records.Identity(pid, ticks, boot).isAlive()).isTrue();
    assertThat(new Records.Identity(pid, ticks + 1, boot).isAlive()).isFalse();
    assertThat(new Records.Identity(pid, ticks, "another boot").isAlive()).isFalse();
  }

  @Test
  void whatWasWrittenIsRemembered() throws Exception {
    Path file = folder.resolve("process.json");
    Records.Identity identity = new Records.Identity(7, 8, "boot");

    assertThat(Records.readProcess(file)).isEmpty();
    Records.writeProcess(file, identity);
    assertThat(Records.readProcess(file)).contains(identity);
    Files.writeString(file, "{\"pid\":");
    assertThat(Records.readProcess(file)).as("half a file").isEmpty();
  }

  @Test
  void whatSparseImagesMayStillTakeIsCounted() throws Exception {
    Folder one = new Folder(Files.createDirectories(folder.resolve("boxes/one")));
    Folder two = new Folder(Files.createDirectories(folder.resolve("boxes/two")));
    Files.createDirectories(folder.resolve("boxes/without"));
    Disk.reserve(one, 10 << 20);
    Disk.reserve(two, 20 << 20);
    assertThat(Disk.unwritten(folder.resolve("boxes"), SOON)).isEqualTo(30 << 20);

    try (FileChannel image = FileChannel.open(two.image(), StandardOpenOption.WRITE)) {
      image.write(ByteBuffer.allocate(4 << 20));
      image.force(true);
    }

    assertThat(Disk.unwritten(folder.resolve("boxes"), SOON)).isEqualTo(26 << 20);
  }

  @Test
  void mountsAreReadWithTheirEscapes() {
    KernelTables.Mount mount =
        KernelTables.parseMount(
                "36 35 8:1 / /a\\040b rw,nosuid shared:1 - ext4 /dev/loop0 rw,errors=continue")
            .orElseThrow();

    assertThat(mount.point()).isEqualTo(Path.of("/a b"));
    assertThat(mount.type()).isEqualTo("ext4");
    assertThat(KernelTables.parseMount("nonsense")).isEmpty();
  }

  @Test
  void programsOfTheHostAreBounded() throws Exception {
    assertThat(Command.run(SOON, "sh", "-c", "echo out; echo err >&2; exit 3"))
        .satisfies(result -> {
          assertThat(result.exitCode()).isEqualTo(3);
          assertThat(result.output()).contains("out").contains("err");
        });
    assertThat(Command.run(SOON, "sh", "-c", "head -c 1000000 /dev/zero").output().length())
        .isLessThanOrEqualTo(16 * 1024);
    assertThat(Command.run(SOON, "env").output().lines()).hasSizeLessThanOrEqualTo(4);
    assertThatThrownBy(() -> Command.run(Deadline.in(Duration.ofMillis(50)), "sleep", "60"))
        .isInstanceOf(DriverException.Failed.class)
        .hasMessageContaining("sleep did not end in time");
    assertThatThrownBy(() -> Command.require(SOON, "try", "sh", "-c", "echo why; exit 1"))
        .hasMessageContaining("cannot try")
        .hasMessageContaining("why");
  }
}
