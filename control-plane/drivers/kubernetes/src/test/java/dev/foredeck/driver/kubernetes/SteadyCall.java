package dev.foredeck.driver.kubernetes;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.AgentDialogue;
import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import java.io.IOException;
import java.security.DigestOutputStream;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;

/// A call that writes random bytes to its output and to a file until it is told to end, and its
/// reader, which attaches again where a connection breaks. At the end both are the same bytes, and
/// the program was started once.
final class SteadyCall implements AutoCloseable {
  private static final String PROGRAM =
      """
      echo x >> starts
      until [ -e enough ]; do
        head -c 8192 /dev/urandom > chunk; cat chunk >> written; cat chunk; sleep 0.2
      done
      """;
  private static final Duration TIMEOUT = Duration.ofSeconds(60);
  private static final long LIMIT_MILLIS = 300_000;

  private final KubernetesDriver driver;
  private final Id sandbox;
  private final String token;
  private final String call;
  private final MessageDigest read;
  private final AtomicLong offset = new AtomicLong();
  private final AtomicInteger questions = new AtomicInteger();
  private final ExecutorService thread = Executors.newVirtualThreadPerTaskExecutor();
  private final Future<Integer> exitCode;

  SteadyCall(KubernetesDriver driver, Id sandbox, String token, String call) throws Exception {
    this.driver = driver;
    this.sandbox = sandbox;
    this.token = token;
    this.call = call;
    this.read = MessageDigest.getInstance("SHA-256");
    this.exitCode = thread.submit(this::readToTheEnd);
    goesOn();
  }

  /// Waits for bytes that were not there before.
  void goesOn() throws Exception {
    long before = offset.get();
    long until = System.nanoTime() + TIMEOUT.toNanos();
    while (offset.get() == before) {
      if (exitCode.isDone()) {
        throw new AssertionError("the call has ended with " + exitCode.get());
      }
      assertThat(System.nanoTime() - until).as("no output came").isNegative();
      Thread.sleep(20);
    }
  }

  /// Ends the program, and compares.
  void endsWhole() throws Exception {
    assertThat(run("touch", "enough").exitCode()).isZero();
    assertThat(exitCode.get(TIMEOUT.toSeconds(), TimeUnit.SECONDS)).isZero();
    assertThat(offset.get()).isPositive();
    assertThat(run("sha256sum", "written").text())
        .startsWith(HexFormat.of().formatHex(read.digest()));
    assertThat(run("cat", "starts").text()).isEqualTo("x\n");
  }

  private AgentDialogue.Outcome run(String... argv) throws Exception {
    return AgentDialogue.run(
        driver.connect(sandbox, token, TIMEOUT), call + "x" + questions.incrementAndGet(), argv);
  }

  private int readToTheEnd() throws Exception {
    try (DigestOutputStream digest =
        new DigestOutputStream(java.io.OutputStream.nullOutputStream(), read)) {
      while (true) {
        try (Connection connection = driver.connect(sandbox, token, TIMEOUT).connection()) {
          connection.send(start());
          Message message;
          while ((message = connection.receive()) != null) {
            switch (message) {
              case Message.Output output -> {
                assertThat(output.offset()).isEqualTo(offset.get());
                digest.write(output.bytes());
                connection.send(
                    new Message.Ack(output.channel(), offset.addAndGet(output.bytes().length)));
              }
              case Message.Ended ended -> {
                return ended.exitCode();
              }
              case Message.Failure failure ->
                  throw new AssertionError(failure.code() + ": " + failure.message());
              default -> {}
            }
          }
        } catch (IOException _) {
          // Broken off: attach again where we were.
        }
      }
    }
  }

  /// By the same id: the agent attaches where it runs already.
  private Message.StartProcess start() {
    return new Message.StartProcess(
        call,
        List.of("sh", "-c", PROGRAM),
        Map.of("PATH", "/usr/bin:/bin", "HOME", "/workspace"),
        "/workspace",
        Optional.empty(),
        false,
        LIMIT_MILLIS,
        1_000,
        offset.get(),
        0);
  }

  @Override
  public void close() {
    thread.shutdownNow();
    thread.close();
  }
}
