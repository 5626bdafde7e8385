package dev.foredeck.systemtests;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayOutputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// `kill -9`, for real: of the control plane at seeded moments of creating, launching, running and
/// destroying, and of the database's postmaster. What was read equals what was written, nothing ran
/// twice, nothing is left.
class KillIT {
  /// `-Dforedeck.kills`: fewer where the build runs this once for each driver.
  private static final int KILLS = Integer.getInteger("foredeck.kills", 50);

  /// Counts its own runs, then writes random bytes to both channels, and keeps their digests in the
  /// workspace.
  private static final String PROGRAM =
      """
      import hashlib, os, random, sys, time
      with open('/workspace/ran', 'a') as f:
          f.write('once\\n')
      r = random.Random(int(os.environ['SEED']))
      sums = {1: hashlib.sha256(), 2: hashlib.sha256()}
      totals = {1: 0, 2: 0}
      for i in range(60):
          fd = r.choice((1, 2))
          block = r.randbytes(r.randrange(1, 30000))
          at = 0
          while at < len(block):
              at += os.write(fd, block[at:])
          sums[fd].update(block)
          totals[fd] += len(block)
          time.sleep(r.random() * 0.03)
      with open('/workspace/sums', 'w') as f:
          f.write('%s %d %s %d' % (sums[1].hexdigest(), totals[1], sums[2].hexdigest(), totals[2]))
      """;

  @Test
  @Tag("driver")
  void losesNothingAndRepeatsNothingWhenTheControlPlaneIsKilled() {
    long seed = Long.getLong("foredeck.seed", 20261123L);
    Random random = new Random(seed);
    Plane plane = Plane.real();
    try {
      Client client = new Client(plane);
      int kills = 0;
      for (int round = 0; kills < KILLS; round++) {
        String context = "seed " + seed + ", round " + round;
        String key = "round-" + round;
        String body = body(random.nextInt(1 << 30));

        // Killed while it creates, launches, runs, or ends.
        Thread poster = Thread.ofVirtual().start(() -> postIgnoringTheEnd(client, body, key));
        Client.sleep(random.nextInt(2500));
        plane.kill();
        join(poster);
        kills++;
        plane.start();

        // The same request again attaches to what the first one began, or begins it.
        Client.Answer answer = client.post("/v1/sandboxes", body, "Idempotency-Key", key);
        assertThat(answer.status()).as(context + ": " + answer.body()).isEqualTo(200);
        JsonNode call = answer.json().path("call");
        String sandbox = answer.json().path("sandbox").path("id").asText();
        assertThat(call.path("status").asText()).as(context + call).isEqualTo("exited");
        assertThat(call.path("exitCode").asInt(-1)).as(context + call).isEqualTo(0);
        assertThat(text(client, sandbox, "ran")).as(context).isEqualTo("once\n");
        String[] sums = text(client, sandbox, "sums").split(" ");
        String id = call.path("id").asText();
        assertThat(digest(read(client, id, "stdout")))
            .as(context)
            .isEqualTo(sums[0] + " " + sums[1]);
        assertThat(digest(read(client, id, "stderr")))
            .as(context)
            .isEqualTo(sums[2] + " " + sums[3]);
        assertThat(fromLog(client, sandbox))
            .as(context)
            .containsExactly(sums[0] + " " + sums[1], sums[2] + " " + sums[3]);

        // Killed while it destroys.
        assertThat(client.delete("/v1/sandboxes/" + sandbox).status()).isBetween(200, 204);
        if (kills < KILLS) {
          Client.sleep(random.nextInt(150));
          plane.kill();
          kills++;
          plane.start();
        }
        client.awaitPhase(sandbox, phase -> phase.equals("gone"));
      }
      assertThat(new Leftovers(plane).findAfterSettling()).isEmpty();
      System.out.printf(
          "kill -9 of the control plane: %d kills, 0 bytes lost, 0 double runs, 0 left over (seed"
              + " %d)%n",
          kills, seed);
    } finally {
      plane.close();
    }
  }

  @Test
  void losesNothingWhenThePostmasterIsKilled() throws Exception {
    Random random = new Random(7);
    Plane plane = Plane.real();
    try {
      Client client = new Client(plane);
      for (int round = 0; round < 5; round++) {
        String key = "postmaster-" + round;
        String body = body(random.nextInt(1 << 30));
        Thread poster = Thread.ofVirtual().start(() -> postIgnoringTheEnd(client, body, key));
        Client.sleep(300 + random.nextInt(1500));
        long postmaster = postmaster(plane);
        ProcessHandle.of(postmaster).orElseThrow().destroyForcibly();
        join(poster);
        Client.Answer answer = untilAnswered(client, body, key);
        JsonNode call = answer.json().path("call");
        assertThat(call.path("status").asText()).as("round " + round + call).isEqualTo("exited");
        String sandbox = answer.json().path("sandbox").path("id").asText();
        String id = call.path("id").asText();
        assertThat(text(client, sandbox, "ran")).isEqualTo("once\n");
        String[] sums = text(client, sandbox, "sums").split(" ");
        assertThat(digest(read(client, id, "stdout"))).isEqualTo(sums[0] + " " + sums[1]);
        assertThat(digest(read(client, id, "stderr"))).isEqualTo(sums[2] + " " + sums[3]);
        client.delete("/v1/sandboxes/" + sandbox);
        client.awaitPhase(sandbox, phase -> phase.equals("gone"));
      }
      assertThat(new Leftovers(plane).findAfterSettling()).isEmpty();
    } finally {
      plane.close();
    }
  }

  private static String body(int seed) {
    ObjectNode body = Client.MAPPER.createObjectNode();
    body.put("destroy", "on-ttl");
    body.putObject("env").put("SEED", Integer.toString(seed));
    body.putObject("resources").put("memory", "256Mi").put("disk", "64Mi");
    body.putObject("run").put("language", "python").put("code", PROGRAM);
    return body.toString();
  }

  private static void postIgnoringTheEnd(Client client, String body, String key) {
    try {
      client.post("/v1/sandboxes", body, "Idempotency-Key", key);
    } catch (UncheckedIOException _) {
      // The control plane was killed under it: that is the test.
    }
  }

  private static Client.Answer untilAnswered(Client client, String body, String key) {
    for (int attempt = 0; ; attempt++) {
      Client.Answer answer = client.post("/v1/sandboxes", body, "Idempotency-Key", key);
      if (answer.status() == 200 || attempt > 60) {
        return answer;
      }
      assertThat(answer.status()).as(answer.body()).isIn(429, 503);
      Client.sleep(500);
    }
  }

  private static long postmaster(Plane plane) throws Exception {
    try (var files = java.nio.file.Files.walk(plane.data().resolve("postgres"), 3)) {
      var pidFile =
          files
              .filter(f -> f.getFileName().toString().equals("postmaster.pid"))
              .findFirst()
              .orElseThrow();
      return Long.parseLong(java.nio.file.Files.readAllLines(pidFile).getFirst().strip());
    }
  }

  private static String text(Client client, String sandbox, String path) {
    return new String(
        client.bytes("/v1/sandboxes/" + sandbox + "/files/" + path), StandardCharsets.UTF_8);
  }

  /// A channel, read by offset in pieces.
  private static byte[] read(Client client, String call, String channel) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    while (true) {
      byte[] piece =
          client.bytes(
              "/v1/calls/" + call + "/output?channel=" + channel + "&offset=" + bytes.size());
      if (piece.length == 0) {
        return bytes.toByteArray();
      }
      bytes.writeBytes(piece);
    }
  }

  /// Both channels as a reader of the log gets them, and the log itself checked for gaps.
  private static List<String> fromLog(Client client, String sandbox) {
    ByteArrayOutputStream stdout = new ByteArrayOutputStream();
    ByteArrayOutputStream stderr = new ByteArrayOutputStream();
    long seq = 0;
    while (true) {
      JsonNode events =
          client.get("/v1/sandboxes/" + sandbox + "/events?after=" + seq).json().path("events");
      if (events.isEmpty()) {
        return List.of(digest(stdout.toByteArray()), digest(stderr.toByteArray()));
      }
      for (JsonNode event : events) {
        assertThat(event.path("seq").asLong()).isEqualTo(seq + 1);
        seq++;
        if (event.path("type").asText().equals("output")) {
          JsonNode data = event.path("data");
          ByteArrayOutputStream channel =
              data.path("channel").asText().equals("stdout") ? stdout : stderr;
          assertThat(data.path("offset").asLong()).isEqualTo(channel.size());
          channel.writeBytes(
              data.has("text")
                  ? data.path("text").asText().getBytes(StandardCharsets.UTF_8)
                  : Base64.getDecoder().decode(data.path("base64").asText()));
        }
      }
    }
  }

  private static String digest(byte[] bytes) {
    try {
      return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes))
          + " "
          + bytes.length;
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }

  private static void join(Thread thread) {
    try {
      thread.join();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
