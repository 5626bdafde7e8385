package dev.foredeck.core;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.egress.EgressGateway.Flow;
import dev.foredeck.core.gate.Call;
import dev.foredeck.core.gate.CallResult;
import dev.foredeck.core.gate.CallStatus;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.core.store.NewEvent;
import dev.foredeck.policy.Decision;
import dev.foredeck.policy.Effect;
import dev.foredeck.protocol.Channel;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.List;
import java.util.Optional;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;

/// The bodies of events are a contract with clients that are written against them: a change of one
/// is a change of this file.
class EventsTest {
  private static final Path GOLDEN = Path.of("src/test/resources/golden/events.jsonl");
  private static final Instant NOW = Instant.parse("2026-11-23T12:00:00Z");
  private static final Id CALL = new Id("call01k84j997a08693f354mcr");
  private static final Id SANDBOX = new Id("sbx01k84j99597j5s9ho2agjd");
  private static final Id TENANT = new Id("ten01k84j926l1p6irljkmdpk");
  private static final Id KEY = new Id("key01k84j926l1p6irljkmdpk");

  @Test
  void everyBodyIsWhatTheGoldenFileSays() throws IOException {
    String lines =
        every().stream()
            .map(event -> event.type() + " " + Json.write(event.data()) + "\n")
            .collect(Collectors.joining());
    if (Boolean.getBoolean("foredeck.golden.write")) {
      Files.createDirectories(GOLDEN.getParent());
      Files.writeString(GOLDEN, lines);
    }
    assertThat(lines).isEqualTo(Files.readString(GOLDEN));
  }

  @Test
  void theListOfTypesNamesEveryOne() {
    assertThat(every().stream().map(NewEvent::type).collect(Collectors.toSet()))
        .isEqualTo(Events.TYPES);
  }

  private static List<NewEvent> every() {
    CallResult exited = new CallResult(CallStatus.EXITED, 3, 0, "", 1_500_000, 4096, 1200, 11, NOW);
    CallResult signaled = new CallResult(CallStatus.SIGNALED, -1, 9, "", 0, 0, 7, 0, NOW);
    CallResult lost =
        new CallResult(CallStatus.LOST, -1, 0, "the sandbox's agent is gone", 0, 0, 7, 5, NOW);
    return List.of(
        Events.phase(NOW, Phase.READY, ""),
        Events.phase(NOW, Phase.GONE, "its time to live is over"),
        Events.requested(
            call(),
            Json.object().put("cwd", "/workspace"),
            new Principal(TENANT, KEY, "admin", Role.OPERATOR)),
        Events.decided(
            NOW,
            CALL,
            new Decision(
                Effect.DENY, List.of("no-force"), "coding@0123456789ab", "Open a pull request"),
            false),
        Events.decided(
            NOW, CALL, new Decision(Effect.ALLOW, List.of(), "coding@0123456789ab", "ok"), true),
        Events.started(NOW, CALL, 23),
        Events.output(NOW, CALL, Channel.STDOUT, 4096, 11),
        Events.truncated(NOW, CALL, Channel.STDERR, 67_108_864, 67_108_864),
        Events.copiedOut(
            NOW,
            CALL,
            "chart.png",
            2,
            "ab".repeat(32),
            Optional.of("hi".getBytes(StandardCharsets.UTF_8))),
        Events.copiedOut(NOW, CALL, "large.bin", 999_999, "cd".repeat(32), Optional.empty()),
        Events.missing(NOW, CALL, "none.txt", "it is not there"),
        Events.ended(CALL, exited),
        Events.ended(CALL, signaled),
        Events.ended(CALL, lost),
        Events.fileChanged(NOW, CALL, "a/b.txt", "written", 12),
        Events.fileChanged(NOW, CALL, "a/b.txt", "removed", -1),
        Events.flow(
            NOW,
            Optional.of(CALL),
            new Flow(
                CALL.value(),
                "pypi.org",
                443,
                "151.101.0.223",
                "CONNECT",
                "",
                "allow",
                "python-packages",
                "",
                false,
                5000,
                700,
                120)),
        Events.flow(
            NOW,
            Optional.empty(),
            new Flow(
                "",
                "metadata.example",
                80,
                "",
                "GET",
                "/latest",
                "deny",
                "private-address",
                "it leads to 169.254.169.254",
                false,
                0,
                90,
                2)),
        Events.flow(
            NOW,
            Optional.empty(),
            new Flow(
                "",
                "evil.example",
                443,
                "192.0.2.7",
                "CONNECT",
                "",
                "allow",
                "default",
                "no rule allows it",
                true,
                100,
                90,
                7)));
  }

  private static Call call() {
    return new Call(
        CALL,
        SANDBOX,
        TENANT,
        "process.start",
        "{}",
        "0f".repeat(32),
        KEY,
        false,
        List.of(),
        false,
        CallStatus.PENDING,
        NOW,
        NOW.plusSeconds(60),
        Optional.empty(),
        0,
        0,
        0,
        false,
        Optional.empty());
  }
}
