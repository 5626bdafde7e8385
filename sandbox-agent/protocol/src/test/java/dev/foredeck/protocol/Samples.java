package dev.foredeck.protocol;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// One message of each type, with a different value in every field.
final class Samples {
  static final String CALL = "call0123456789abcdef";

  static final Message.Gateway GATEWAY =
      new Message.Gateway("sbx0123456789abcdef", "10.0.0.7", 3129, "ab".repeat(32));

  private Samples() {}

  static List<Message> all() {
    return List.of(
        new Message.Greeting(1, 2, "boot-1", "token-ü", "0.1.0"),
        new Message.Hello("token-ü", Optional.of(GATEWAY)),
        process(),
        new Message.Attach(CALL, 5, 6),
        new Message.Signal(CALL, 15),
        new Message.Terminate(CALL, 5000, Message.EndCause.CANCELLED),
        new Message.WriteStdin(CALL, 7, new byte[] {1, 0, -1}, true),
        new Message.Release(CALL),
        new Message.Ping(),
        new Message.ReadFile("a/b.txt", 8, 9),
        new Message.WriteFile("a/\uD83D\uDE80", 0644),
        new Message.ListFiles("", 3),
        new Message.StatFile("s"),
        new Message.RemoveFile("r", true),
        new Message.MoveFile("from", "to"),
        new Message.Started(42),
        new Message.Output(Channel.STDERR, 1L << 40, new byte[] {9, 8}),
        new Message.Ack(Channel.STDOUT, 10),
        new Message.StdinAck(11),
        new Message.Ended(Message.EndCause.TIMEOUT, 3, 9, 100, 101, 102, 103, 104),
        new Message.FileInfo("f", Message.FileKind.FILE, 12, 0755, -13),
        new Message.FileList(
            List.of(
                new Message.FileInfo("d", Message.FileKind.DIRECTORY, 0, 0700, 1),
                new Message.FileInfo("l", Message.FileKind.LINK, 2, 0777, 3)),
            true),
        new Message.Chunk(new byte[] {4, 5, 6}),
        new Message.ChunksEnd(14),
        new Message.Done(),
        new Message.Failure(Message.FailureCode.DISK_FULL, "no space left"));
  }

  static Message.StartProcess process() {
    Map<String, String> env = new LinkedHashMap<>();
    env.put("PATH", "/usr/bin");
    env.put("EMPTY", "");
    return new Message.StartProcess(
        CALL,
        List.of("python3", ""),
        env,
        "/workspace",
        Optional.of(new Message.Script(".py", new byte[] {112, 0})),
        true,
        60_000,
        5_000,
        1,
        2);
  }
}
