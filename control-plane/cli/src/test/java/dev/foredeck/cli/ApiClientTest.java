package dev.foredeck.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.cli.ScriptedApi.Answer;
import java.io.IOException;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Test;

class ApiClientTest {
  private static final byte[] BODY = "{}".getBytes(StandardCharsets.UTF_8);
  private static final ApiClient.Patience PATIENCE =
      new ApiClient.Patience(Duration.ofSeconds(20), Duration.ofMillis(5), 3);
  private static final List<Long> ALL = LongStream.rangeClosed(1, 16).boxed().toList();

  private final List<String> parts = Recording.parts();
  private final List<Long> seen = new ArrayList<>();
  private final List<String> resumed = new ArrayList<>();

  private void create(URI url, ApiClient.Patience patience) throws InterruptedException {
    try (ApiClient client = new ApiClient(url, "secret", patience)) {
      client.create(
          BODY,
          "key-1",
          new ApiClient.Observer() {
            @Override
            public void event(LogEvent event) {
              seen.add(event.seq());
            }

            @Override
            public void resuming(long after, String why) {
              resumed.add(after + " " + why);
            }
          });
    }
  }

  private void create(ScriptedApi api) throws InterruptedException {
    create(api.url(), PATIENCE);
  }

  private static Answer brokenAfter(List<String> parts, String rest) {
    return Answer.brokenStream(String.join("", parts) + rest);
  }

  @Test
  void followsALogToItsEndWithOneRequest() throws Exception {
    try (ScriptedApi api = new ScriptedApi(Answer.stream(parts))) {
      create(api);

      assertThat(seen).isEqualTo(ALL);
      assertThat(resumed).isEmpty();
      assertThat(api.asked)
          .containsExactly(
              new ScriptedApi.Asked("POST /v1/sandboxes", "Bearer secret", "", "key-1", "{}"));
    }
  }

  @Test
  void goesOnBehindTheLastWholeEventWhenTheConnectionDropsInTheMiddleOfOne() throws Exception {
    Answer broken = brokenAfter(parts.subList(0, 10), parts.get(10).substring(0, 40));
    // The server sends one event too many: a reader sees none twice.
    Answer rest = Answer.stream(parts.subList(8, parts.size()));
    try (ScriptedApi api = new ScriptedApi(broken, rest)) {
      create(api);

      assertThat(seen).isEqualTo(ALL);
      assertThat(resumed).hasSize(1);
      assertThat(api.asked)
          .extracting(ScriptedApi.Asked::line)
          .containsExactly("POST /v1/sandboxes", "GET /v1/sandboxes/sb0123456789abcdefgh/events");
      assertThat(api.asked.get(1).lastEventId())
          .isEqualTo(Long.toString(Long.parseLong(resumed.getFirst().split(" ")[0])));
      assertThat(api.asked.get(1).authorization()).isEqualTo("Bearer secret");
    }
  }

  @Test
  void repeatsTheSameRequestWhenItDropsBeforeTheFirstEvent() throws Exception {
    try (ScriptedApi api =
        new ScriptedApi(brokenAfter(parts.subList(0, 1), ""), Answer.stream(parts))) {
      create(api);

      assertThat(seen).isEqualTo(ALL);
      assertThat(api.asked)
          .extracting(ScriptedApi.Asked::line)
          .containsExactly("POST /v1/sandboxes", "POST /v1/sandboxes");
      assertThat(api.asked).extracting(ScriptedApi.Asked::idempotencyKey).containsOnly("key-1");
    }
  }

  @Test
  void waitsForTheSandboxToGoWhereTheStreamEndsWithTheCall() throws Exception {
    try (ScriptedApi api =
        new ScriptedApi(
            Answer.stream(parts.subList(0, parts.size() - 2)),
            Answer.stream(parts.subList(parts.size() - 2, parts.size())))) {
      create(api);

      assertThat(seen).isEqualTo(ALL);
    }
  }

  @Test
  void takesASilentConnectionForADeadOne() throws Exception {
    Answer silent =
        new Answer(200, "text/event-stream", String.join("", parts.subList(0, 5)), false, true);
    try (ScriptedApi api = new ScriptedApi(silent, Answer.stream(parts))) {
      create(api.url(), new ApiClient.Patience(Duration.ofMillis(300), Duration.ofMillis(5), 3));

      assertThat(seen).isEqualTo(ALL);
      assertThat(resumed).hasSize(1);
    }
  }

  @Test
  void givesUpOnAServerThatBringsNothingNew() throws Exception {
    Answer first = Answer.stream(parts.subList(0, 6));
    Answer nothing = Answer.stream(List.of());
    try (ScriptedApi api = new ScriptedApi(first, nothing, nothing, nothing)) {
      assertThatThrownBy(() -> create(api))
          .isInstanceOf(CommandException.class)
          .hasMessageContaining("does not come back");
      assertThat(api.asked).hasSize(4);
    }
  }

  @Test
  void saysWhatTheControlPlaneRefused() throws Exception {
    String problem =
        """
        {"type":"https://x/unknown-policy","title":"Invalid","status":400,"code":"unknown-policy",
         "detail":"there is no policy 'x'",
         "violations":[{"pointer":"/policy","code":"unknown-policy","message":"there is\\u001b[2J none"}]}
        """;
    try (ScriptedApi api = new ScriptedApi(Answer.json(400, problem))) {
      assertThatThrownBy(() -> create(api))
          .isInstanceOf(CommandException.class)
          .hasMessage(
              "the control plane answered 400: there is no policy 'x' (unknown-policy)\n"
                  + "  /policy: there is\\x1b[2J none");
      assertThat(api.asked).hasSize(1);
    }
  }

  @Test
  void saysThatNobodyAnswers() throws Exception {
    URI nobody;
    try (ScriptedApi api = new ScriptedApi()) {
      nobody = api.url();
    }

    assertThatThrownBy(() -> create(nobody, PATIENCE)).isInstanceOf(CommandException.class);
    assertThat(resumed).hasSize(2);
  }

  @Test
  void destroysASandboxAndWaitsUntilItIsGone() throws IOException, InterruptedException {
    try (ScriptedApi api =
            new ScriptedApi(
                Answer.json(202, "{\"id\":\"sb1\",\"phase\":\"stopping\"}"),
                Answer.json(200, "{\"id\":\"sb1\",\"phase\":\"stopping\"}"),
                Answer.json(200, "{\"id\":\"sb1\",\"phase\":\"gone\"}"));
        ApiClient client = new ApiClient(api.url(), "secret", PATIENCE)) {
      assertThat(client.destroy("sb1", Duration.ofSeconds(20))).isTrue();
      assertThat(api.asked)
          .extracting(ScriptedApi.Asked::line)
          .containsExactly(
              "DELETE /v1/sandboxes/sb1", "GET /v1/sandboxes/sb1", "GET /v1/sandboxes/sb1");
    }
  }

  @Test
  void listsTheSandboxesOfALabelThatAreNotGone() throws IOException, InterruptedException {
    String page =
        """
        {"sandboxes":[{"id":"sb1","phase":"gone"},{"id":"sb2","phase":"ready"}]}
        """;
    try (ScriptedApi api = new ScriptedApi(Answer.json(200, page));
        ApiClient client = new ApiClient(api.url(), "secret", PATIENCE)) {
      assertThat(client.live("demo=x1")).containsExactly("sb2");
      assertThat(api.asked.getFirst().line()).isEqualTo("GET /v1/sandboxes?label=demo%3Dx1");
    }
  }
}
