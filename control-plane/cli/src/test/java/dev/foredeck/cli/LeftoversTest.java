package dev.foredeck.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class LeftoversTest {
  /// First four bytes of the SHA-256 of `/var/tmp/foredeck-demo-1`.
  private static final String FRAME = "foredeck-ba0ea61a";

  private static final Path DATA = Path.of("/var/tmp/foredeck-demo-1");

  @TempDir private Path root;

  private Leftovers leftovers() {
    return leftovers(Optional.empty());
  }

  private Leftovers leftovers(Optional<DockerDaemon> daemon) {
    return new Leftovers(root, DATA, Set.of("sb0123456789abcdefgh"), daemon);
  }

  private void file(String path, String text) throws IOException {
    Path file = root.resolve(path);
    Files.createDirectories(file.getParent());
    Files.writeString(file, text);
  }

  @BeforeEach
  void layOutAHostOfOthers() throws IOException {
    file(
        "proc/self/mountinfo",
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:5 / /proc rw - proc\n");
    file("proc/10/cmdline", "/usr/bin/postgres\0-D\0/var/tmp/foredeck-demo-2/postgres\0");
    file("proc/11/cmdline", "");
    file("proc/uptime", "1 1");
    file("sys/block/loop0/loop/backing_file", "/var/lib/foredeck/sandboxes/x/disk.img\n");
    Files.createDirectories(root.resolve("sys/block/sda"));
    Files.createDirectories(root.resolve("sys/fs/cgroup/memory/foredeck-00000000"));
    Files.createDirectories(root.resolve("run/foredeck-00000000"));
    Files.createDirectories(root.resolve("run/foredeck-uids"));
    Files.createSymbolicLink(
        root.resolve("run/foredeck-uids/1"), Path.of("/run/foredeck-00000000/sb9"));
  }

  @Test
  void seesNothingInWhatBelongsToOthers() {
    assertThat(leftovers().find()).isEmpty();
  }

  @Test
  void findsEachKindOfLeftover() throws IOException {
    file("proc/12/cmdline", "postgres\0-D\0/var/tmp/foredeck-demo-1/postgres\0");
    file("proc/13/cmdline", "runc\0run\0sb0123456789abcdefgh\0");
    file(
        "proc/self/mountinfo",
        """
        30 22 7:0 / /var/tmp/foredeck-demo-1/sandboxes/sb/disk rw - ext4 /dev/loop1 rw
        31 22 0:40 / /somewhere rw - overlay overlay rw,upperdir=/var/tmp/foredeck-demo-1/x
        """);
    file("sys/block/loop1/loop/backing_file", "/var/tmp/foredeck-demo-1/sandboxes/sb/disk.img\n");
    Files.createDirectories(root.resolve("sys/fs/cgroup/pids/" + FRAME + "/sb0123456789abcdefgh"));
    Files.createDirectories(root.resolve("run/" + FRAME + "/s"));
    Files.createSymbolicLink(
        root.resolve("run/foredeck-uids/2"), Path.of("/run/" + FRAME + "/sb0123456789abcdefgh"));

    assertThat(leftovers().find())
        .containsExactly(
            "process 12: postgres -D /var/tmp/foredeck-demo-1/postgres",
            "process 13: runc run sb0123456789abcdefgh",
            "mount /var/tmp/foredeck-demo-1/sandboxes/sb/disk",
            "mount /somewhere",
            "loop device loop1 on /var/tmp/foredeck-demo-1/sandboxes/sb/disk.img",
            "cgroup /sys/fs/cgroup/pids/" + FRAME,
            "range of users /run/foredeck-uids/2",
            "folder /run/" + FRAME);
  }

  @Test
  void findsWhatTheDockerDaemonStillHas() throws Exception {
    try (FakeDocker docker =
        new FakeDocker(
            root.resolve("docker.sock"),
            Map.of(
                "/containers/json?all=true",
                """
                [{"Id":"1","Names":["/foredeck-sb0123456789abcdefgh"]},
                 {"Id":"2","Names":["/renamed"],"Labels":{"dev.foredeck.deployment":"ba0ea61a"}},
                 {"Id":"3","Names":["/theirs"],"Labels":{"dev.foredeck.deployment":"00000000"}}]
                """,
                "/volumes",
                """
                {"Volumes":[{"Name":"v1","Options":{"device":"/var/tmp/foredeck-demo-1/x"}},
                            {"Name":"v2"}]}
                """))) {
      assertThat(leftovers(Optional.of(docker.daemon())).find())
          .containsExactly(
              "container /foredeck-sb0123456789abcdefgh", "container /renamed", "volume v1");
    }
  }

  @Test
  void aDaemonThatCannotBeAskedIsNotTakenForAnEmptyOne() throws Exception {
    Path socket = root.resolve("docker.sock");
    assertThat(leftovers(Optional.of(new DockerDaemon(socket))).find())
        .singleElement()
        .asString()
        .startsWith("what the Docker daemon at " + socket + " has: ");
    try (FakeDocker docker = new FakeDocker(socket, Map.of())) {
      assertThat(leftovers(Optional.of(docker.daemon())).find())
          .containsExactly(
              "what the Docker daemon at " + socket + " has: it answered HTTP/1.0 500 Oops");
    }
  }

  @Test
  void takesAwayTheEmptyFrameAndNothingOfOthers() throws IOException {
    Files.createDirectories(root.resolve("sys/fs/cgroup/pids/" + FRAME + "/inner"));
    file("run/" + FRAME + "/s/x.sock", "");

    leftovers().removeFrame();

    assertThat(leftovers().find()).isEmpty();
    assertThat(root.resolve("run/foredeck-00000000")).exists();
    assertThat(root.resolve("sys/fs/cgroup/memory/foredeck-00000000")).exists();
  }

  @Test
  void leavesTheFrameAloneWhileSomethingRunsInIt() throws IOException {
    file("run/" + FRAME + "/s/x.sock", "");
    file("proc/13/cmdline", "runc\0run\0sb0123456789abcdefgh\0");

    leftovers().removeFrame();

    assertThat(root.resolve("run/" + FRAME + "/s/x.sock")).exists();
  }

  @Test
  void removesATreeWithoutFollowingLinks() throws IOException {
    file("outside/kept", "x");
    file("tree/a/b", "x");
    Files.createSymbolicLink(root.resolve("tree/link"), root.resolve("outside"));

    Leftovers.removeTree(root.resolve("tree"));
    Leftovers.removeTree(root.resolve("tree"));

    assertThat(root.resolve("tree")).doesNotExist();
    assertThat(root.resolve("outside/kept")).exists();
  }
}
