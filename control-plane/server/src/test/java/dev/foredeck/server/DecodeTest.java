package dev.foredeck.server;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatExceptionOfType;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Json;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Problem;
import dev.foredeck.core.Problem.Violation;
import dev.foredeck.core.ProblemException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Bodies are read strictly, and everything that is wrong is named at once.
class DecodeTest {
  private final Decode decode = new Decode(Limits.DEFAULT);
  private final JsonBody json = new JsonBody(Limits.DEFAULT);

  private List<Violation> violations(String body) {
    ObjectNode parsed = json.parse(body.getBytes(StandardCharsets.UTF_8));
    List<Violation> found = new ArrayList<>();
    assertThatExceptionOfType(ProblemException.class)
        .as(body)
        .isThrownBy(() -> decode.provision(parsed))
        .satisfies(e -> found.addAll(((Problem.Invalid) e.problem()).violations()));
    return found;
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      textBlock =
          """
          {"tll":"1m"}                                   | /tll               | unknown-field
          {"a/b~c":1}                                    | /a~1b~0c           | unknown-field
          {"template":7}                                 | /template          | wrong-type
          {"template":null}                              | /template          | wrong-type
          {"template":"../x"}                            | /template          | bad-value
          {"policy":"default@"}                          | /policy            | bad-value
          {"resources":{"cpu":"fast"}}                   | /resources/cpu     | bad-value
          {"resources":{"cpu":0}}                        | /resources/cpu     | bad-value
          {"resources":{"cpu":"0.0001"}}                 | /resources/cpu     | bad-value
          {"resources":{"memory":"1GB"}}                 | /resources/memory  | bad-value
          {"resources":{"memory":"99999999999999Ti"}}    | /resources/memory  | bad-value
          {"resources":{"disk":-1}}                      | /resources/disk    | bad-value
          {"resources":{"disk":1e30}}                    | /resources/disk    | bad-value
          {"resources":{"disk":true}}                    | /resources/disk    | wrong-type
          {"resources":{"gpu":1}}                        | /resources/gpu     | unknown-field
          {"ttl":60}                                     | /ttl               | wrong-type
          {"ttl":"0s"}                                   | /ttl               | bad-value
          {"ttl":"1m1h"}                                 | /ttl               | bad-value
          {"ttl":"-1s"}                                  | /ttl               | bad-value
          {"ttl":"25h"}                                  | /ttl               | too-large
          {"env":{"A=B":"x"}}                            | /env               | bad-value
          {"env":{"A":1}}                                | /env/A             | wrong-type
          {"env":{"A":"\\u0000"}}                        | /env/A             | bad-value
          {"env":[]}                                     | /env               | wrong-type
          {"secrets":["x"]}                              | /secrets           | not-supported
          {"labels":{"-a":"x"}}                          | /labels            | bad-value
          {"labels":{"a":"x\\n"}}                        | /labels/a          | bad-value
          {"files":[{"path":"../x","content":""}]}       | /files/0/path      | bad-value
          {"files":[{"path":"/x","content":""}]}         | /files/0/path      | bad-value
          {"files":[{"path":"a/%2e%2E/x","content":""}]} | /files/0/path      | bad-value
          {"files":[{"path":"a\\u0000","content":""}]}   | /files/0/path      | bad-value
          {"files":[{"path":"a\\\\b","content":""}]}     | /files/0/path      | bad-value
          {"files":[{"path":"","content":""}]}           | /files/0/path      | bad-value
          {"files":[{"path":".","content":""}]}          | /files/0/path      | bad-value
          {"files":[{"content":""}]}                     | /files/0/path      | missing-field
          {"files":[{"path":"a"}]}                       | /files/0/content   | missing-field
          {"files":[{"path":"a","base64":"!"}]}          | /files/0/base64    | bad-value
          {"files":[{"path":"a","base64":"","content":""}]} | /files/0/base64 | bad-value
          {"files":["a"]}                                | /files/0           | wrong-type
          {"network":{}}                                 | /network/allow     | missing-field
          {"network":{"allow":["a b"]}}                  | /network/allow/0   | bad-value
          {"network":{"allow":"*"}}                      | /network/allow     | wrong-type
          {"run":{}}                                     | /run/argv          | missing-field
          {"run":{"argv":[]}}                            | /run/argv          | bad-value
          {"run":{"argv":[""]}}                          | /run/argv/0        | bad-value
          {"run":{"argv":["a\\u0000"]}}                  | /run/argv/0        | bad-value
          {"run":{"argv":["a",1]}}                       | /run/argv/1        | wrong-type
          {"run":{"argv":["a"],"code":"x"}}              | /run/argv          | bad-value
          {"run":{"code":"x"}}                           | /run/language      | missing-field
          {"run":{"language":"python"}}                  | /run/code          | missing-field
          {"run":{"language":"pyton","code":"x"}}        | /run/language      | bad-value
          {"run":{"argv":["a"],"pty":true}}              | /run/pty           | not-supported
          {"run":{"argv":["a"],"context":"c"}}           | /run/context       | not-supported
          {"run":{"argv":["a"],"cwd":"/a/../b"}}         | /run/cwd           | bad-value
          {"run":{"argv":["a"],"timeout":"1d1ms"}}       | /run/timeout       | too-large
          {"run":{"argv":["a"],"background":true}}       | /run/background    | unknown-field
          {"outputs":["a"]}                              | /outputs           | bad-value
          {"run":{"argv":["a"]},"outputs":["../a"]}      | /outputs/0         | bad-value
          {"run":{"argv":["a"]},"outputs":["a","./a"]}   | /outputs/1         | bad-value
          {"destroy":"never"}                            | /destroy           | bad-value
          """)
  void refusesAndPoints(String body, String pointer, String code) {
    assertThat(violations(body))
        .extracting(Violation::pointer, Violation::code)
        .contains(org.assertj.core.groups.Tuple.tuple(pointer, code));
  }

  @Test
  void gathersEveryViolationUpToABound() {
    assertThat(violations("{\"tll\":1,\"ttl\":1,\"env\":1,\"run\":{\"argv\":[\"a\"],\"pty\":1}}"))
        .hasSize(4);
    StringBuilder many = new StringBuilder("{\"x\":1");
    for (int i = 0; i < 200; i++) {
      many.append(",\"x").append(i).append("\":1");
    }
    assertThat(violations(many.append('}').toString())).hasSize(50);
  }

  @Test
  void suggestsTheNearestField() {
    assertThat(violations("{\"tll\":1}").getFirst().message())
        .isEqualTo("there is no field `tll` here; did you mean `ttl`?");
    assertThat(violations("{\"zzz\":1}").getFirst().message()).contains("known are template,");
    String echo = violations("{\"" + "q".repeat(1000) + "\\u0007\":1}").getFirst().message();
    assertThat(echo).hasSizeLessThan(400).doesNotContain("\u0007");
  }

  @Test
  void boundsEveryPart() {
    Map<String, String> tooLarge =
        Map.of(
            "/env", "{\"env\":{\"A\":\"" + "x".repeat(131_060) + "\",\"B\":\"xxxxxxxxxx\"}}",
            "/run/argv/0", "{\"run\":{\"argv\":[\"" + "x".repeat(131_072) + "\"]}}",
            "/run/argv", "{\"run\":{\"argv\":[\"x\"" + ",\"x\"".repeat(1024) + "]}}",
            "/run/code",
                "{\"run\":{\"language\":\"bash\",\"code\":\"" + "x".repeat(1 << 20) + "x\"}}",
            "/files",
                "{\"files\":[{\"path\":\"a\",\"content\":\""
                    + "x".repeat(5 << 20)
                    + "\"},{\"path\":\"b\",\"content\":\""
                    + "x".repeat(4 << 20)
                    + "\"}]}",
            "/labels/a", "{\"labels\":{\"a\":\"" + "ü".repeat(129) + "\"}}",
            "/outputs",
                "{\"run\":{\"argv\":[\"a\"]},\"outputs\":[\"a\"" + ",\"a\"".repeat(32) + "]}");
    tooLarge.forEach((pointer, body) ->
        assertThat(violations(body))
            .extracting(Violation::pointer, Violation::code)
            .contains(org.assertj.core.groups.Tuple.tuple(pointer, "too-large")));
    assertThat(WorkspacePath.parse("x/".repeat(2000) + "x", false).good()).isFalse();
    assertThat(WorkspacePath.parse("x".repeat(256), false).good()).isFalse();
    assertThat(WorkspacePath.parse("x".repeat(255), false).good()).isTrue();
  }

  @Test
  void readsAndWritesQuantities() {
    assertThat(Quantity.size("512Mi")).hasValue(512L << 20);
    assertThat(Quantity.size("1k")).hasValue(1000);
    assertThat(Quantity.cpuMillis("0.5")).hasValue(500);
    assertThat(Quantity.cpuMillis("2")).hasValue(2000);
    assertThat(Quantity.duration("1h30m")).contains(Duration.ofMinutes(90));
    assertThat(Quantity.duration("5m500ms")).contains(Duration.ofMillis(300_500));
    assertThat(Quantity.duration("")).isEmpty();
    assertThat(Quantity.writeSize(1536L << 20)).isEqualTo("1536Mi");
    assertThat(Quantity.writeSize(1000)).isEqualTo("1000");
    assertThat(Quantity.writeCpu(1500)).isEqualTo("1500m");
  }

  /// Whatever is changed in a valid body, the answer is a request or a list of violations, never a
  /// fault. The seed is in the message.
  @Test
  void neverFaultsOnAMutatedBody() throws Exception {
    ObjectMapper mapper = new ObjectMapper();
    String whole =
        """
        {"template":"python","resources":{"cpu":"1","memory":"1Gi","disk":"2Gi"},"ttl":"15m",
         "policy":"default","env":{"K":"V"},"labels":{"team":"growth"},
         "files":[{"path":"data.csv","content":"..."},{"path":"x.bin","base64":"AAEC"}],
         "network":{"allow":["pypi.org"]},"tool":"process.start","argv":["a"],"signal":"INT",
         "run":{"language":"python","code":"1","cwd":"x","timeout":"60s","argv":["bash"],"stdin":true},
         "outputs":["chart.png"],"destroy":"on-exit","depth":1,"path":"a","offset":1,"end":true}
        """;
    int refused = 0;
    for (long seed = 0; seed < 5_000; seed++) {
      Random random = new Random(seed);
      ObjectNode body = (ObjectNode) mapper.readTree(whole);
      for (int i = random.nextInt(4); i >= 0; i--) {
        mutate(body, random);
      }
      byte[] bytes = body.toString().getBytes(StandardCharsets.UTF_8);
      for (int i = random.nextInt(3); i > 1; i--) {
        bytes[random.nextInt(bytes.length)] = (byte) random.nextInt(256);
      }
      try {
        ObjectNode parsed = json.parse(bytes);
        switch (random.nextInt(5)) {
          case 0 -> decode.call(parsed);
          case 1 -> decode.stdin(parsed);
          case 2 -> decode.patch(parsed);
          case 3 -> decode.key(parsed);
          default -> decode.provision(parsed);
        }
      } catch (ProblemException e) {
        assertThat(e.problem()).isInstanceOf(Problem.Invalid.class);
        refused++;
      } catch (RuntimeException e) {
        throw new AssertionError("seed " + seed + ": " + body, e);
      }
    }
    assertThat(refused).isGreaterThan(2_500);
  }

  private static void mutate(ObjectNode body, Random random) {
    List<JsonNode> containers = new ArrayList<>();
    gather(body, containers);
    JsonNode chosen = containers.get(random.nextInt(containers.size()));
    if (chosen instanceof ObjectNode object) {
      List<String> names = object.properties().stream().map(Map.Entry::getKey).toList();
      String name =
          names.isEmpty() || random.nextInt(8) == 0
              ? odd(random)
              : names.get(random.nextInt(names.size()));
      if (random.nextInt(6) == 0) {
        object.remove(name);
      } else {
        object.set(name, value(random));
      }
    } else if (chosen instanceof ArrayNode array) {
      array.add(value(random));
    }
  }

  private static void gather(JsonNode node, List<JsonNode> containers) {
    if (node.isContainerNode()) {
      containers.add(node);
      node.forEach(child -> gather(child, containers));
    }
  }

  private static String odd(Random random) {
    String[] odd = {
      "",
      "..",
      "../../x",
      "\u0000",
      "\ud800",
      "é",
      "/",
      "~",
      "1e999",
      "%2e%2e",
      "a".repeat(5000),
      "-1",
      "1Gi",
      "60s",
      "SIGKILL",
      "python",
      "\\",
      "A=B"
    };
    return odd[random.nextInt(odd.length)];
  }

  private static JsonNode value(Random random) {
    ObjectNode holder = Json.object();
    switch (random.nextInt(9)) {
      case 0 -> holder.putNull("v");
      case 1 -> holder.put("v", random.nextLong());
      case 2 -> holder.put("v", random.nextGaussian() * 1e18);
      case 3 -> holder.put("v", random.nextBoolean());
      case 4 -> holder.putObject("v").put(odd(random), odd(random));
      case 5 -> holder.putArray("v").add(odd(random)).add(1);
      default -> holder.put("v", odd(random));
    }
    return holder.path("v");
  }
}
