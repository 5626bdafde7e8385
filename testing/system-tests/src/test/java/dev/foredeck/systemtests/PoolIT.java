package dev.foredeck.systemtests;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.function.Predicate;
import org.junit.jupiter.api.Test;

/// Warm pools from outside, on real sandboxes: filled, claimed from, killed while they fill, and
/// gone when the control plane is stopped.
class PoolIT {
  private static final String SMALL = "\"resources\":{\"memory\":\"256Mi\",\"disk\":\"64Mi\"}";
  private static final Map<String, String> POOL =
      Map.of("FOREDECK_POOLS", "host+memory=256Mi+disk=64Mi:3-4");
  private static final long PATIENCE_MILLIS = 60_000;

  private static JsonNode awaitPool(Client client, Predicate<JsonNode> condition) {
    long end = System.currentTimeMillis() + PATIENCE_MILLIS;
    while (true) {
      JsonNode pool = client.get("/v1/pools").json().path("pools").get(0);
      if (condition.test(pool)) {
        return pool;
      }
      assertThat(System.currentTimeMillis()).as(pool.toString()).isLessThan(end);
      Client.sleep(50);
    }
  }

  private static JsonNode run(Client client, String more) {
    Client.Answer answer =
        client.post(
            "/v1/sandboxes",
            "{"
                + SMALL
                + more
                + ",\"run\":{\"argv\":[\"bash\",\"-c\",\"echo $K; cat in || true\"]}}");
    assertThat(answer.status()).as(answer.body()).isEqualTo(200);
    assertThat(answer.json().path("call").path("status").asText()).isEqualTo("exited");
    return answer.json();
  }

  private static List<String> phases(Client client, JsonNode run) {
    String id = run.path("sandbox").path("id").asText();
    List<String> phases = new ArrayList<>();
    for (JsonNode event : client.get("/v1/sandboxes/" + id + "/events").json().path("events")) {
      if (event.path("type").asText().equals("sandbox.phase")) {
        JsonNode data = event.path("data");
        phases.add((data.path("phase").asText() + " " + data.path("reason").asText()).strip());
      }
    }
    return phases;
  }

  @Test
  void aClaimedSandboxDoesWhatAColdOneDoesAndNothingStaysBehind() {
    Plane plane = Plane.start("local", POOL);
    try {
      Client client = new Client(plane);
      JsonNode pool = awaitPool(client, p -> p.path("warm").asInt() == 3);
      assertThat(pool.path("floor").asInt()).isEqualTo(3);
      assertThat(pool.path("resources").path("memory").asText()).isEqualTo("256Mi");

      JsonNode plain = run(client, ",\"env\":{\"K\":\"hello\"}");
      assertThat(plain.path("call").path("stdout").asText()).isEqualTo("hello\n");
      assertThat(phases(client, plain)).startsWith("requested", "ready claimed from the pool");
      JsonNode files =
          run(client, ",\"env\":{\"K\":\"x\"},\"files\":[{\"path\":\"in\",\"content\":\"data\"}]");
      assertThat(files.path("call").path("stdout").asText()).isEqualTo("x\ndata");
      assertThat(phases(client, files))
          .startsWith("requested", "starting claimed from the pool", "ready claimed from the pool");
      Client.Answer cold = client.post("/v1/sandboxes", "{\"run\":{\"argv\":[\"true\"]}}");
      assertThat(phases(client, cold.json()).getFirst()).startsWith("requested no pool for");

      pool = awaitPool(client, p -> p.path("warm").asInt() >= 3 && p.path("warming").asInt() == 0);
      assertThat(pool.path("claims").toString()).isEqualTo("{\"warm\":2,\"cold\":0}");
      assertThat(pool.path("launches").path("warm").asInt()).isGreaterThanOrEqualTo(5);
      String labels = "policy=\"" + pool.path("policy").asText() + "\",pool=\"";
      String key = pool.path("key").asText();
      assertThat(new String(client.bytes("/metrics"), StandardCharsets.UTF_8).lines())
          .contains(
              "foredeck_pool_claims_total{got=\"warm\"," + labels + key + "\"} 2.0",
              "foredeck_pool_claims_total{got=\"cold\"," + labels + key + "\"} 0.0",
              "foredeck_pool_floor{" + labels + key + "\"} 3.0",
              "foredeck_pool_ceiling{" + labels + key + "\"} 4.0")
          .anyMatch(line -> line.matches("foredeck_pool_warm\\{.*} [34]\\.0"));
      assertThat(plane.stop()).isZero();
      assertThat(new Leftovers(plane).findAfterSettling()).isEmpty();
    } finally {
      plane.close();
    }
  }

  @Test
  void isKilledWhileItFillsAndEverySandboxIsAdoptedOrGone() {
    Random random = new Random(Long.getLong("foredeck.seed", 20261123L));
    Plane plane = Plane.start("local", POOL);
    try {
      Client client = new Client(plane);
      Set<String> seen = new HashSet<>();
      for (int round = 0; round < 8; round++) {
        String key = "pool-" + round;
        Thread poster =
            Thread.ofVirtual()
                .start(() -> {
                  try {
                    client.post(
                        "/v1/sandboxes",
                        "{" + SMALL + ",\"run\":{\"argv\":[\"bash\",\"-c\",\"echo once >> ran\"]}}",
                        "Idempotency-Key",
                        key);
                  } catch (java.io.UncheckedIOException _) {
                    // The control plane was killed under it: that is the test.
                  }
                });
        Client.sleep(random.nextInt(600));
        plane.kill();
        try {
          poster.join();
        } catch (InterruptedException e) {
          Thread.currentThread().interrupt();
        }
        plane.start();
        Client.Answer answer =
            client.post(
                "/v1/sandboxes",
                "{" + SMALL + ",\"run\":{\"argv\":[\"bash\",\"-c\",\"echo once >> ran\"]}}",
                "Idempotency-Key",
                key);
        assertThat(answer.status()).as(answer.body()).isEqualTo(200);
        assertThat(answer.json().path("call").path("status").asText())
            .as("round " + round + answer.body())
            .isEqualTo("exited");
        assertThat(seen.add(answer.json().path("sandbox").path("id").asText())).isTrue();
      }
      awaitPool(client, p -> p.path("warm").asInt() >= 3 && p.path("warming").asInt() == 0);
      assertThat(plane.stop()).isZero();
      assertThat(new Leftovers(plane).findAfterSettling()).isEmpty();
    } finally {
      plane.close();
    }
  }
}
