package dev.foredeck.systemtests;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.foredeck.systemtests.Client.Answer;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;

/// The disk under the database fills while calls print. Nothing hangs and nothing that was
/// acknowledged is lost: requests are refused for as long as it lasts, and when there is room again
/// everything goes on by itself, whether PostgreSQL lived through it or not.
class DatabaseFullIT {
  private static final int DISK_MEBIBYTES = 512;
  private static final int ROUNDS = 2;

  /// Of one run of the simulated `random`, on each channel.
  private static final int PRINTS_BYTES = 3_000_000;

  private static final int PRINTS = 8;

  /// While the database is down altogether each request waits some seconds for it.
  private static final int REFUSALS = 4;

  private static final Duration MOST_PER_REQUEST = Duration.ofSeconds(45);

  @Test
  void goesOnByItselfWhenTheDatabasesDiskWasFull() throws Exception {
    Path mount = Files.createTempDirectory(Path.of("/var/tmp"), "foredeck-full-");
    Files.setPosixFilePermissions(mount, PosixFilePermissions.fromString("rwxr-xr-x"));
    Path log = Files.createTempFile("foredeck-full-", ".log");
    run(
        "mount",
        "-t",
        "tmpfs",
        "-o",
        "mode=755,size=" + DISK_MEBIBYTES + "m",
        "tmpfs",
        mount.toString());
    try {
      Path data = Files.createDirectory(mount.resolve("data"));
      Files.setPosixFilePermissions(data, PosixFilePermissions.fromString("rwxr-xr-x"));
      Path ballast = mount.resolve("ballast");
      Plane plane = Plane.startIn(data, log, "simulated");
      try {
        for (int round = 0; round < ROUNDS; round++) {
          fillAndRelease(plane, ballast, round);
        }
        assertThat(Files.readString(log)).doesNotContain(plane.key());
      } catch (AssertionError | RuntimeException e) {
        System.out.println(plane.logTail());
        throw e;
      } finally {
        Files.deleteIfExists(ballast);
        plane.close();
      }
    } finally {
      run("umount", mount.toString());
      Files.delete(mount);
      Files.delete(log);
    }
  }

  private static void fillAndRelease(Plane plane, Path ballast, int round) throws Exception {
    Client client = new Client(plane);
    String sandbox = client.sandbox("{}");
    JsonNode before = client.run(sandbox, "random", "7", "100000");
    assertThat(before.path("status").asText()).isEqualTo("exited");

    List<String> argv = new ArrayList<>(List.of("do"));
    for (int i = 0; i < PRINTS; i++) {
      if (i > 0) {
        argv.add(";");
      }
      argv.addAll(List.of("random", Integer.toString(i), Integer.toString(PRINTS_BYTES), ";"));
      argv.addAll(List.of("sleep", "250"));
    }
    Answer started = client.start(sandbox, true, argv.toArray(new String[0]));
    assertThat(started.status()).as(started.body()).isEqualTo(202);
    String call = started.json().path("call").path("id").asText();
    Client.sleep(300);

    long server = postmaster(plane);
    fill(ballast);
    if (round == ROUNDS - 1) {
      // However PostgreSQL took the full disk before: this time it must start on one.
      ProcessHandle.of(server).orElseThrow().destroyForcibly();
    }
    Set<String> made = new HashSet<>();
    Set<String> refused = new HashSet<>();
    Set<Integer> readiness = new HashSet<>();
    long most = System.nanoTime() + Duration.ofMinutes(3).toNanos();
    for (int i = 0; refused.size() < REFUSALS; i++) {
      assertThat(System.nanoTime()).as("nothing is refused, the disk is full").isLessThan(most);
      String key = "full-" + round + "-" + i;
      Answer answer = create(client, key);
      if (answer.status() == 201) {
        made.add(answer.json().path("id").asText());
      } else {
        assertUnavailable(answer);
        refused.add(key);
      }
      Answer ready = timed(() -> client.get("/readyz"));
      if (ready.status() != 200) {
        assertUnavailable(ready);
      }
      readiness.add(ready.status());
      Answer read = timed(() -> client.get("/v1/sandboxes/" + sandbox));
      if (read.status() != 200) {
        assertUnavailable(read);
      }
      // What PostgreSQL frees meanwhile is not for it.
      fill(ballast);
      Client.sleep(100);
    }
    // Reading still works where PostgreSQL lives; that is not enough to be ready.
    while (client.get("/readyz").status() == 200) {
      assertThat(System.nanoTime()).as("ready, though the disk is full").isLessThan(most);
      fill(ballast);
      Client.sleep(100);
    }
    for (int i = 0; i < 10; i++) {
      fill(ballast);
      assertUnavailable(timed(() -> client.get("/readyz")));
      Client.sleep(300);
    }
    Files.delete(ballast);

    // By itself, and soon.
    long recovered = System.nanoTime() + Duration.ofMinutes(1).toNanos();
    while (client.get("/readyz").status() != 200
        || create(client, "after-" + round).status() != 201) {
      assertThat(System.nanoTime()).as("it does not recover").isLessThan(recovered);
      Client.sleep(200);
    }
    JsonNode ended = awaitEnd(client, call);
    assertThat(ended.path("status").asText()).as(ended.toString()).isEqualTo("exited");
    assertThat(ended.path("exitCode").asInt(-1)).isZero();
    for (String channel : List.of("stdout", "stderr")) {
      assertThat(client.bytes("/v1/calls/" + call + "/output?channel=" + channel))
          .isEqualTo(printed(channel));
    }
    assertGapFree(client, sandbox);
    assertThat(client.bytes("/v1/calls/" + before.path("id").asText() + "/output"))
        .hasSize(100_000);
    for (String id : made) {
      assertThat(client.get("/v1/sandboxes/" + id).status()).as(id).isEqualTo(200);
    }
    // Asked again under the same key, each is made exactly once.
    for (String key : refused) {
      Answer again = create(client, key);
      assertThat(again.status()).as(again.body()).isEqualTo(201);
      Answer same = create(client, key);
      assertThat(same.json().path("id")).isEqualTo(again.json().path("id"));
      assertThat(client.get("/v1/sandboxes?label=key=" + key).json().path("sandboxes")).hasSize(1);
    }
    System.out.printf(
        "full disk, round %d: %d refused, %d made, /readyz said %s, the same postmaster: %b%n",
        round, refused.size(), made.size(), readiness, server == postmaster(plane));
    client.destroyAll();
  }

  private static long postmaster(Plane plane) throws IOException {
    Path file = plane.data().resolve("postgres/cluster/postmaster.pid");
    return Long.parseLong(Files.readAllLines(file).getFirst().strip());
  }

  private interface Request {
    Answer send();
  }

  private static Answer create(Client client, String key) {
    return timed(() ->
        client.post(
            "/v1/sandboxes", "{\"labels\":{\"key\":\"" + key + "\"}}", "Idempotency-Key", key));
  }

  /// Nothing hangs.
  private static Answer timed(Request request) {
    long begin = System.nanoTime();
    Answer answer = request.send();
    assertThat(Duration.ofNanos(System.nanoTime() - begin)).isLessThan(MOST_PER_REQUEST);
    return answer;
  }

  private static void assertUnavailable(Answer answer) {
    assertThat(answer.status()).as(answer.body()).isEqualTo(503);
    assertThat(answer.response().headers().firstValue("Content-Type"))
        .hasValue("application/problem+json");
    assertThat(answer.response().headers().firstValueAsLong("Retry-After")).isPresent();
    assertThat(answer.json().path("code").asText()).isIn("store-unavailable", "not-ready");
    assertThat(answer.body()).doesNotContain("Exception").doesNotContain("\\tat ");
  }

  private static JsonNode awaitEnd(Client client, String call) {
    long end = System.nanoTime() + Duration.ofMinutes(2).toNanos();
    while (true) {
      JsonNode json = client.get("/v1/calls/" + call).json();
      if (!List.of("pending", "running").contains(json.path("status").asText())
          || System.nanoTime() > end) {
        return json;
      }
      Client.sleep(200);
    }
  }

  /// Every event once and in order, and each channel's output without a gap.
  private static void assertGapFree(Client client, String sandbox) {
    long seq = 0;
    while (true) {
      JsonNode page = client.get("/v1/sandboxes/" + sandbox + "/events?after=" + seq).json();
      if (page.path("events").isEmpty()) {
        break;
      }
      for (JsonNode event : page.path("events")) {
        seq++;
        assertThat(event.path("seq").asLong()).isEqualTo(seq);
      }
    }
    assertThat(seq).isPositive();
  }

  /// What the simulated `random` prints: 8 KiB at a time, of another generator for each channel.
  private static byte[] printed(String channel) {
    ByteArrayOutputStream all = new ByteArrayOutputStream();
    for (int i = 0; i < PRINTS; i++) {
      SplittableRandom random = new SplittableRandom(channel.equals("stderr") ? ~(long) i : i);
      for (int done = 0; done < PRINTS_BYTES; done += 8 * 1024) {
        byte[] piece = new byte[Math.min(8 * 1024, PRINTS_BYTES - done)];
        random.nextBytes(piece);
        all.writeBytes(piece);
      }
    }
    return all.toByteArray();
  }

  /// Takes whatever room is left.
  private static void fill(Path ballast) throws IOException {
    try (FileChannel file =
        FileChannel.open(
            ballast,
            StandardOpenOption.CREATE,
            StandardOpenOption.WRITE,
            StandardOpenOption.APPEND)) {
      for (int piece : new int[] {1 << 20, 1 << 12}) {
        ByteBuffer zeros = ByteBuffer.allocate(piece);
        try {
          while (true) {
            zeros.clear();
            while (zeros.hasRemaining()) {
              file.write(zeros);
            }
          }
        } catch (IOException _) {
          // No room for a piece of this size.
        }
      }
    }
  }

  private static void run(String... command) throws Exception {
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    String said =
        new String(
            process.getInputStream().readAllBytes(), java.nio.charset.StandardCharsets.UTF_8);
    assertThat(process.waitFor()).as(said).isZero();
  }
}
