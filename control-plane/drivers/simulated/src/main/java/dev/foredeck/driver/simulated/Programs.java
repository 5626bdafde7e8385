package dev.foredeck.driver.simulated;

import dev.foredeck.protocol.Channel;
import dev.foredeck.protocol.Message.FailureCode;
import dev.foredeck.protocol.Message.Script;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;

/// The programs of a simulated sandbox, by `argv[0]`:
///
/// | program | does |
/// | --- | --- |
/// | `echo WORD...` | prints the words |
/// | `error WORD...` | prints the words on stderr |
/// | `cat [FILE]` | prints a file of the workspace, or stdin to its end |
/// | `sleep MILLIS` | waits |
/// | `random SEED BYTES` | prints so many bytes on each channel, the same ones for the same seed |
/// | `append FILE WORD` | appends the word and a newline |
/// | `touch FILE` | makes the file where there is none; counted in any case |
/// | `exit N`, `true`, `false` | ends |
/// | `spin` | runs until it is ended |
/// | `stubborn` | the same, and ignores TERM |
/// | `do STEP ; STEP ...` | runs each step in turn, until one ends with something else than 0 |
///
/// `sh`, `bash`, `python3` and `node` print how long the program is that they were given: nothing
/// here interprets anything.
final class Programs {
  private static final int PIECE_BYTES = 8 * 1024;

  /// Runs to its end.
  @FunctionalInterface
  interface Program {
    /// @return the exit code
    /// @throws InterruptedException when a signal has ended it
    int run(SimulatedProcess process) throws InterruptedException;
  }

  /// Is told of what a program did to the outside.
  @FunctionalInterface
  interface Effects {
    void happened(String what);
  }

  private Programs() {}

  static Program find(
      List<String> argv, Optional<Script> script, Workspace workspace, Effects effects)
      throws AgentFailure {
    List<String> words = argv.subList(1, argv.size());
    return switch (argv.getFirst()) {
      case "echo" -> process -> print(process, Channel.STDOUT, String.join(" ", words) + "\n");
      case "error" -> process -> print(process, Channel.STDERR, String.join(" ", words) + "\n");
      case "cat" -> process -> cat(process, words, workspace);
      case "sleep" -> {
        long millis = number(words, 0);
        yield process -> {
          process.pace().sleep(millis);
          return 0;
        };
      }
      case "random" -> {
        long seed = number(words, 0);
        long bytes = number(words, 1);
        yield process -> random(process, seed, bytes);
      }
      case "append" -> {
        String file = word(words, 0);
        byte[] line = (word(words, 1) + "\n").getBytes(StandardCharsets.UTF_8);
        yield process ->
            effect(process, "append " + file, effects, () -> workspace.append(file, line));
      }
      case "touch" -> {
        String file = word(words, 0);
        yield process ->
            effect(process, "touch " + file, effects, () -> workspace.append(file, new byte[0]));
      }
      case "exit" -> {
        long code = number(words, 0);
        yield _ -> (int) (code & 0xff);
      }
      case "true" -> _ -> 0;
      case "false" -> _ -> 1;
      case "spin" -> Programs::spin;
      case "stubborn" ->
          process -> {
            process.ignoreTerm();
            return spin(process);
          };
      case "do" -> sequence(words, workspace, effects);
      case "sh", "bash", "python3", "node" -> {
        int length =
            script
                .map(s -> s.bytes().length)
                .orElse(String.join(" ", words).getBytes(StandardCharsets.UTF_8).length);
        yield process ->
            print(
                process,
                Channel.STDOUT,
                "simulated " + argv.getFirst() + ": " + length + " bytes of program\n");
      }
      case String other ->
          throw new AgentFailure(
              FailureCode.NOT_EXECUTABLE, "a simulated sandbox has no program " + other);
    };
  }

  /// What `random SEED BYTES` prints on a channel, for whoever checks it.
  static byte[] randomOutput(Channel channel, long seed, int bytes) {
    byte[] all = new byte[bytes];
    SplittableRandom random = generator(channel, seed);
    for (int done = 0; done < bytes; done += PIECE_BYTES) {
      byte[] piece = new byte[Math.min(PIECE_BYTES, bytes - done)];
      random.nextBytes(piece);
      System.arraycopy(piece, 0, all, done, piece.length);
    }
    return all;
  }

  private static SplittableRandom generator(Channel channel, long seed) {
    return new SplittableRandom(channel == Channel.STDERR ? ~seed : seed);
  }

  private static Program sequence(List<String> words, Workspace workspace, Effects effects)
      throws AgentFailure {
    List<Program> steps = new ArrayList<>();
    List<String> step = new ArrayList<>();
    for (String word : words) {
      if (word.equals(";")) {
        steps.add(find(nonEmpty(step), Optional.empty(), workspace, effects));
        step = new ArrayList<>();
      } else {
        step.add(word);
      }
    }
    steps.add(find(nonEmpty(step), Optional.empty(), workspace, effects));
    return process -> {
      for (Program each : steps) {
        process.checkSignal();
        int code = each.run(process);
        if (code != 0) {
          return code;
        }
      }
      return 0;
    };
  }

  private static List<String> nonEmpty(List<String> step) throws AgentFailure {
    if (step.isEmpty() || step.getFirst().equals("do")) {
      throw new AgentFailure(FailureCode.BAD_REQUEST, "do takes programs, parted by ;");
    }
    return step;
  }

  private static int print(SimulatedProcess process, Channel channel, String text)
      throws InterruptedException {
    process.write(channel, text.getBytes(StandardCharsets.UTF_8));
    return 0;
  }

  private static int cat(SimulatedProcess process, List<String> words, Workspace workspace)
      throws InterruptedException {
    if (words.isEmpty()) {
      for (byte[] bytes = process.readStdin(); bytes != null; bytes = process.readStdin()) {
        process.write(Channel.STDOUT, bytes);
      }
      return 0;
    }
    try {
      process.write(Channel.STDOUT, workspace.read(words.getFirst()));
      return 0;
    } catch (AgentFailure e) {
      print(process, Channel.STDERR, "cat: " + e.getMessage() + "\n");
      return 1;
    }
  }

  private static int random(SimulatedProcess process, long seed, long bytes)
      throws InterruptedException {
    SplittableRandom out = generator(Channel.STDOUT, seed);
    SplittableRandom err = generator(Channel.STDERR, seed);
    for (long done = 0; done < bytes; done += PIECE_BYTES) {
      byte[] piece = new byte[(int) Math.min(PIECE_BYTES, bytes - done)];
      out.nextBytes(piece);
      process.write(Channel.STDOUT, piece);
      piece = Arrays.copyOf(piece, piece.length);
      err.nextBytes(piece);
      process.write(Channel.STDERR, piece);
    }
    return 0;
  }

  @FunctionalInterface
  private interface Change {
    void make() throws AgentFailure;
  }

  private static int effect(SimulatedProcess process, String what, Effects effects, Change change)
      throws InterruptedException {
    process.checkSignal();
    try {
      change.make();
      effects.happened(what);
      return 0;
    } catch (AgentFailure e) {
      return print(process, Channel.STDERR, e.getMessage() + "\n") + 1;
    }
  }

  private static int spin(SimulatedProcess process) throws InterruptedException {
    while (true) {
      try {
        process.pace().sleep(1_000);
      } finally {
        process.checkSignal();
      }
    }
  }

  private static String word(List<String> words, int index) throws AgentFailure {
    if (index >= words.size()) {
      throw new AgentFailure(FailureCode.BAD_REQUEST, "the program takes more words");
    }
    return words.get(index);
  }

  private static long number(List<String> words, int index) throws AgentFailure {
    try {
      long number = Long.parseLong(word(words, index));
      if (number >= 0) {
        return number;
      }
    } catch (NumberFormatException _) {
      // Refused below.
    }
    throw new AgentFailure(FailureCode.BAD_REQUEST, word(words, index) + " is not a number");
  }
}
