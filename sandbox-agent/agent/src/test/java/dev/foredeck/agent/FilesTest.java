package dev.foredeck.agent;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Message.FailureCode;
import dev.foredeck.protocol.Message.FileKind;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Objects;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/// The workspace's files, through the protocol, in a tree that a hostile workload has prepared.
@Timeout(60)
class FilesTest {
  private static RunningAgent agent;
  private static Path workspace;
  private static Path secret;

  @TempDir static Path folder;

  @BeforeAll
  static void start() throws IOException {
    agent = RunningAgent.start(folder);
    workspace = agent.workspace();
    Path outside = Files.createDirectories(folder.resolve("outside"));
    secret = Files.writeString(outside.resolve("secret"), "secret");
    Files.createSymbolicLink(workspace.resolve("to-folder"), outside);
    Files.createSymbolicLink(workspace.resolve("to-file"), secret);
    Files.createSymbolicLink(workspace.resolve("relative"), Path.of("../outside"));
    Files.createSymbolicLink(workspace.resolve("magic"), Path.of("/proc/self/root"));
  }

  @AfterAll
  static void stop() throws IOException {
    agent.close();
  }

  private static FailureCode failure(Message message) {
    assertThat(message).isInstanceOf(Message.Failure.class);
    return ((Message.Failure) message).code();
  }

  private static Message write(String path, byte[] bytes) throws IOException {
    try (Connection connection = agent.request(new Message.WriteFile(path, 0640))) {
      int half = bytes.length / 2;
      connection.send(new Message.Chunk(java.util.Arrays.copyOf(bytes, half)));
      connection.send(new Message.Chunk(java.util.Arrays.copyOfRange(bytes, half, bytes.length)));
      connection.send(new Message.ChunksEnd(bytes.length));
      return Objects.requireNonNull(connection.receive());
    }
  }

  private static byte[] read(String path, long offset, long max) throws IOException {
    try (Connection connection = agent.request(new Message.ReadFile(path, offset, max))) {
      assertThat(connection.receive()).isInstanceOf(Message.FileInfo.class);
      ByteArrayOutputStream bytes = new ByteArrayOutputStream();
      while (connection.receive() instanceof Message.Chunk chunk) {
        bytes.writeBytes(chunk.bytes());
      }
      return bytes.toByteArray();
    }
  }

  @Test
  void writesAFileAsAWholeAndReadsItBack() throws IOException {
    byte[] bytes = new byte[100_001];
    new Random(3).nextBytes(bytes);
    assertThat(write("a/b/ü 🚀.bin", bytes))
        .isInstanceOfSatisfying(
            Message.FileInfo.class,
            file -> {
              assertThat(file.path()).isEqualTo("a/b/ü 🚀.bin");
              assertThat(file.sizeBytes()).isEqualTo(bytes.length);
              assertThat(file.mode()).isEqualTo(0640);
            });
    assertThat(read("a/b/ü 🚀.bin", 0, Long.MAX_VALUE)).isEqualTo(bytes);
    assertThat(read("a/b/ü 🚀.bin", 99_999, 1)).isEqualTo(new byte[] {bytes[99_999]});
    assertThat(read("a/b/ü 🚀.bin", 1_000_000, 10)).isEmpty();
  }

  @Test
  void leavesNothingOfAnUploadThatStopped() throws Exception {
    Path directory = Files.createDirectories(workspace.resolve("uploads"));
    Files.writeString(directory.resolve("f"), "before");
    try (Connection connection = agent.request(new Message.WriteFile("uploads/f", 0644))) {
      connection.send(new Message.Chunk(new byte[10]));
      awaitEntries(directory, 2);
    }
    awaitEntries(directory, 1);
    assertThat(directory.resolve("f")).hasContent("before");
  }

  private static void awaitEntries(Path directory, int count) throws Exception {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
    while (true) {
      try (Stream<Path> entries = Files.list(directory)) {
        if (entries.count() == count) {
          return;
        }
      }
      assertThat(System.nanoTime()).isLessThan(deadline);
      Thread.sleep(5);
    }
  }

  @Test
  void refusesAnUploadWhoseLengthIsNotWhatWasSent() throws IOException {
    try (Connection connection = agent.request(new Message.WriteFile("short", 0644))) {
      connection.send(new Message.Chunk(new byte[10]));
      connection.send(new Message.ChunksEnd(11));
      assertThat(failure(Objects.requireNonNull(connection.receive())))
          .isEqualTo(FailureCode.BAD_REQUEST);
    }
    assertThat(workspace.resolve("short")).doesNotExist();
  }

  @Test
  void neverLeavesTheWorkspace() throws IOException {
    for (String path :
        new String[] {
          "../outside/secret",
          "/etc/passwd",
          "to-file",
          "to-folder/secret",
          "relative/secret",
          "magic/etc/passwd",
          "a/../../outside/secret"
        }) {
      assertThat(failure(agent.ask(new Message.ReadFile(path, 0, 100))))
          .as(path)
          .isEqualTo(FailureCode.OUTSIDE_WORKSPACE);
    }
    for (String path : new String[] {"..", "to-folder", "relative", "magic"}) {
      assertThat(failure(agent.ask(new Message.ListFiles(path, 1))))
          .as(path)
          .isEqualTo(FailureCode.OUTSIDE_WORKSPACE);
      assertThat(failure(agent.ask(new Message.WriteFile(path + "/new", 0644))))
          .as(path)
          .isEqualTo(FailureCode.OUTSIDE_WORKSPACE);
      assertThat(failure(agent.ask(new Message.RemoveFile(path + "/secret", true))))
          .as(path)
          .isEqualTo(FailureCode.OUTSIDE_WORKSPACE);
      assertThat(failure(agent.ask(new Message.MoveFile(path + "/secret", "stolen"))))
          .as(path)
          .isEqualTo(FailureCode.OUTSIDE_WORKSPACE);
    }
    assertThat(secret).hasContent("secret");
  }

  @Test
  void replacesALinkInsteadOfWritingThroughIt() throws IOException {
    Files.createSymbolicLink(workspace.resolve("replaced"), secret);
    assertThat(write("replaced", "mine".getBytes(UTF_8))).isInstanceOf(Message.FileInfo.class);
    assertThat(secret).hasContent("secret");
    assertThat(workspace.resolve("replaced")).isRegularFile().hasContent("mine");
  }

  @Test
  void followsALinkThatStaysInside() throws IOException {
    Files.createDirectories(workspace.resolve("real"));
    Files.writeString(workspace.resolve("real/f"), "inside");
    Files.createSymbolicLink(workspace.resolve("alias"), Path.of("real"));
    assertThat(read("alias/f", 0, 100)).isEqualTo("inside".getBytes(UTF_8));
    assertThat(agent.ask(new Message.StatFile("alias")))
        .isInstanceOfSatisfying(
            Message.FileInfo.class, file -> assertThat(file.kind()).isEqualTo(FileKind.LINK));
  }

  @Test
  void removesATreeWithoutFollowingItsLinks() throws IOException {
    Files.createDirectories(workspace.resolve("tree/deep/er"));
    Files.writeString(workspace.resolve("tree/deep/f"), "x");
    Files.createSymbolicLink(workspace.resolve("tree/deep/link"), secret.getParent());
    assertThat(failure(agent.ask(new Message.RemoveFile("tree", false))))
        .isEqualTo(FailureCode.NOT_EMPTY);
    assertThat(agent.ask(new Message.RemoveFile("tree", true))).isEqualTo(new Message.Done());
    assertThat(workspace.resolve("tree")).doesNotExist();
    assertThat(secret).hasContent("secret");
    assertThat(failure(agent.ask(new Message.RemoveFile("", true))))
        .isEqualTo(FailureCode.BAD_REQUEST);
  }

  @Test
  void listsByDepth() throws IOException {
    Files.createDirectories(workspace.resolve("l/one/two"));
    Files.writeString(workspace.resolve("l/one/f"), "x");
    Message.FileList flat = (Message.FileList) agent.ask(new Message.ListFiles("l", 1));
    assertThat(flat.entries().stream().map(Message.FileInfo::path)).containsExactly("l/one");
    Message.FileList deep = (Message.FileList) agent.ask(new Message.ListFiles("l", 3));
    assertThat(deep.entries().stream().map(Message.FileInfo::path))
        .containsExactly("l/one", "l/one/f", "l/one/two");
    assertThat(deep.truncated()).isFalse();
  }

  @Test
  void movesWithinTheWorkspace() throws IOException {
    Files.writeString(workspace.resolve("m1"), "one");
    Files.writeString(workspace.resolve("m2"), "two");
    assertThat(agent.ask(new Message.MoveFile("m1", "m2"))).isEqualTo(new Message.Done());
    assertThat(workspace.resolve("m2")).hasContent("one");
    assertThat(failure(agent.ask(new Message.MoveFile("m1", "m3"))))
        .isEqualTo(FailureCode.NOT_FOUND);
  }

  @Test
  void refusesWhatIsNoRegularFileWithoutWaitingForIt() throws Exception {
    assertThat(new ProcessBuilder("mkfifo", workspace.resolve("fifo").toString()).start().waitFor())
        .isZero();
    assertThat(failure(agent.ask(new Message.ReadFile("fifo", 0, 1))))
        .isEqualTo(FailureCode.NOT_A_FILE);
    Files.createDirectories(workspace.resolve("dir"));
    assertThat(failure(agent.ask(new Message.ReadFile("dir", 0, 1))))
        .isEqualTo(FailureCode.NOT_A_FILE);
    assertThat(failure(agent.ask(new Message.ReadFile("missing", 0, 1))))
        .isEqualTo(FailureCode.NOT_FOUND);
  }
}
