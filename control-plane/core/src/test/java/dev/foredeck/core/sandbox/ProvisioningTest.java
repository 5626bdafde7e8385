package dev.foredeck.core.sandbox;

import static dev.foredeck.core.kit.ControlPlane.OPERATION;
import static dev.foredeck.core.kit.ControlPlane.process;
import static dev.foredeck.core.kit.World.problem;
import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Id;
import dev.foredeck.core.Operation;
import dev.foredeck.core.Problem;
import dev.foredeck.core.gate.CallStatus;
import dev.foredeck.core.gate.ToolCall;
import dev.foredeck.core.kit.ControlPlane;
import dev.foredeck.core.kit.World;
import dev.foredeck.core.sandbox.Sandboxes.Provisioned;
import dev.foredeck.protocol.Message;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
final class ProvisioningTest {
  private static final long GIB = 1L << 30;

  private final World world = new World();

  @AfterEach
  void close() {
    world.close();
  }

  private Sandboxes sandboxes() {
    return world.plane().sandboxes;
  }

  private static ProvisionRequest request(
      Optional<String> template,
      OptionalInt cpu,
      OptionalLong memory,
      Optional<Duration> ttl,
      Optional<String> policy,
      Optional<List<String>> networkAllow) {
    return new ProvisionRequest(
        template,
        cpu,
        memory,
        OptionalLong.empty(),
        ttl,
        policy,
        Map.of(),
        Map.of("team", "growth"),
        List.of(),
        networkAllow,
        Optional.empty(),
        List.of(),
        Optional.empty());
  }

  private static ProvisionRequest network(String... hosts) {
    return request(
        Optional.empty(),
        OptionalInt.empty(),
        OptionalLong.empty(),
        Optional.empty(),
        Optional.empty(),
        Optional.of(List.of(hosts)));
  }

  private static ProvisionRequest ttl(Duration ttl) {
    return request(
        Optional.empty(),
        OptionalInt.empty(),
        OptionalLong.empty(),
        Optional.of(ttl),
        Optional.empty(),
        Optional.empty());
  }

  private Problem.Violation violation(ProvisionRequest request) {
    Problem problem = problem(() -> sandboxes().create(OPERATION, request));
    assertThat(problem).isInstanceOf(Problem.Invalid.class);
    assertThat(((Problem.Invalid) problem).violations()).hasSize(1);
    return ((Problem.Invalid) problem).violations().getFirst();
  }

  @Test
  void aRequestThatSaysNothingGetsTheDefaults() {
    Sandbox sandbox =
        sandboxes().create(OPERATION, ControlPlane.request(Optional.empty())).sandbox();
    assertThat(sandbox.phase()).isEqualTo(Phase.REQUESTED);
    assertThat(sandbox.template()).isEqualTo("host");
    assertThat(sandbox.policy()).startsWith("default@");
    assertThat(sandbox.resources().cpuMillis()).isEqualTo(1_000);
    assertThat(sandbox.resources().pids()).isEqualTo(128);
    assertThat(Duration.between(sandbox.createdAt(), sandbox.expiresAt()))
        .isEqualTo(Duration.ofMinutes(15));
    assertThat(sandboxes().awaitReady(OPERATION, sandbox.id(), Duration.ofSeconds(10)).phase())
        .isEqualTo(Phase.READY);
  }

  @Test
  void createsRunsAndDestroysInOneRequest() {
    Provisioned made =
        sandboxes().create(OPERATION, ControlPlane.request(Optional.of(process("echo", "hi"))));
    Id call = made.call().orElseThrow().id();
    assertThat(world.ended(call).status()).isEqualTo(CallStatus.EXITED);
    Sandbox gone = world.gone(made.sandbox().id());
    assertThat(gone.phase()).isEqualTo(Phase.GONE);
    assertThat(gone.endedAt()).isPresent();
    assertThat(world.backend.states()).isEmpty();
    assertThat(world.gateway.isOpen(gone.id())).isFalse();
    assertThat(world.story(gone.id()))
        .containsExactly(
            "sandbox.phase requested",
            "call.requested",
            "call.decided allow",
            "sandbox.phase starting",
            "sandbox.phase ready",
            "call.started",
            "output",
            "call.ended exited",
            "sandbox.phase stopping",
            "sandbox.phase gone");
  }

  @Test
  void inlineFilesAreThereBeforeTheFirstCallAndAreForgottenThen() {
    byte[] big = new byte[150_000];
    world.backend.program("check", self -> self.agent().file("d/in.bin") == null ? 1 : 0);
    Provisioned made =
        sandboxes()
            .create(
                OPERATION,
                ControlPlane.request(
                    Optional.of(process("check")),
                    List.of(new InlineFile("d/in.bin", big)),
                    List.of()));
    assertThat(world.ended(made.call().orElseThrow().id()).result().orElseThrow().exitCode())
        .isZero();
    assertThat(world.store.files(made.sandbox().id())).isEmpty();
  }

  @Test
  void aDeniedRunIsRecordedAndMakesNoSandbox() {
    Operation keyed = ControlPlane.keyed("POST /v1/sandboxes", "k", "hash");
    Problem problem =
        problem(() ->
            sandboxes().create(keyed, ControlPlane.request(Optional.of(process("rm", "-r")))));
    assertThat(problem).isInstanceOf(Problem.Denied.class);
    Id sandbox = ((Problem.Denied) problem).sandbox();
    assertThat(world.story(sandbox))
        .containsExactly(
            "sandbox.phase requested",
            "call.requested",
            "call.decided deny",
            "call.ended denied",
            "sandbox.phase gone");
    assertThat(world.backend.everyAgent()).isEmpty();
    // Its key is free for a request that is allowed.
    sandboxes().create(keyed, ControlPlane.request(Optional.of(process("true"))));
  }

  @Test
  void askingForMoreThanThePolicyAllowsNamesFieldAndRule() {
    Problem.Violation memory =
        violation(
            request(
                Optional.empty(),
                OptionalInt.empty(),
                OptionalLong.of(3 * GIB),
                Optional.empty(),
                Optional.empty(),
                Optional.empty()));
    assertThat(memory.pointer()).isEqualTo("/resources/memory");
    assertThat(memory.code()).isEqualTo("not-allowed");
    assertThat(memory.message()).contains("boundary.limits.memory").contains("default@");
    Problem.Violation cpu =
        violation(
            request(
                Optional.empty(),
                OptionalInt.of(1),
                OptionalLong.empty(),
                Optional.empty(),
                Optional.empty(),
                Optional.empty()));
    assertThat(cpu.pointer()).isEqualTo("/resources/cpu");
    assertThat(cpu.code()).isEqualTo("bad-value");
  }

  @Test
  void theTimeToLiveIsHeldToPolicyAndLimits() {
    assertThat(violation(ttl(Duration.ofHours(3))).message()).contains("boundary.limits.lifetime");
    assertThat(violation(ttl(Duration.ofDays(3))).code()).isEqualTo("too-large");
    assertThat(violation(ttl(Duration.ZERO)).code()).isEqualTo("bad-value");
    assertThat(violation(ttl(Duration.ofSeconds(Long.MAX_VALUE))).code()).isEqualTo("too-large");
  }

  @Test
  void anUnknownTemplateOrPolicyIsNamedWithWhatThereIs() {
    Problem.Violation template =
        violation(
            request(
                Optional.of("nonesuch"),
                OptionalInt.empty(),
                OptionalLong.empty(),
                Optional.empty(),
                Optional.empty(),
                Optional.empty()));
    assertThat(template.code()).isEqualTo("unknown-template");
    assertThat(template.message()).contains("host");
    Problem.Violation policy =
        violation(
            request(
                Optional.empty(),
                OptionalInt.empty(),
                OptionalLong.empty(),
                Optional.empty(),
                Optional.of("nonesuch"),
                Optional.empty()));
    assertThat(policy.pointer()).isEqualTo("/policy");
    assertThat(policy.message()).contains("default");
  }

  @Test
  void aNetworkMayOnlyBeNarrowed() {
    assertThat(violation(network("pypi.org", "evil.com")).pointer()).isEqualTo("/network/allow/1");
    assertThat(violation(network("*")).code()).isEqualTo("not-allowed");
    assertThat(violation(network("not a host")).code()).isEqualTo("bad-value");
    Sandbox sandbox = sandboxes().create(OPERATION, network("pypi.org")).sandbox();
    sandboxes().awaitReady(OPERATION, sandbox.id(), Duration.ofSeconds(10));
    assertThat(world.gateway.decide(sandbox.id(), "pypi.org", 443).allowed()).isTrue();
    assertThat(world.gateway.decide(sandbox.id(), "files.pythonhosted.org", 443).rule())
        .isEqualTo("network.allow");
    assertThat(world.gateway.decide(sandbox.id(), "files.pythonhosted.org", 443).allowed())
        .isFalse();
  }

  @Test
  void whatOnlyARunLeavesNeedsARun() {
    assertThat(violation(ControlPlane.request(Optional.empty(), List.of(), List.of("x"))).pointer())
        .isEqualTo("/outputs");
    ProvisionRequest none = ControlPlane.request(Optional.empty());
    assertThat(
            violation(
                    new ProvisionRequest(
                        none.template(),
                        none.cpuMillis(),
                        none.memoryBytes(),
                        none.diskBytes(),
                        none.ttl(),
                        none.policy(),
                        none.env(),
                        none.labels(),
                        none.files(),
                        none.networkAllow(),
                        none.run(),
                        none.outputs(),
                        Optional.of(true)))
                .pointer())
        .isEqualTo("/destroy");
  }

  @Test
  void liveSandboxesAreLimitedAndARepeatIsAnsweredAllTheSame() throws Exception {
    world.limits = World.limits(Duration.ofSeconds(1));
    Operation keyed = ControlPlane.keyed("POST /v1/sandboxes", "k", "hash");
    sandboxes().create(OPERATION, ControlPlane.request(Optional.empty()));
    List<Callable<Id>> requests = new ArrayList<>();
    for (int i = 0; i < 16; i++) {
      requests.add(
          () -> sandboxes().create(keyed, ControlPlane.request(Optional.empty())).sandbox().id());
    }
    List<Id> made = new ArrayList<>();
    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      for (Future<Id> answer : threads.invokeAll(requests)) {
        made.add(answer.get());
      }
    }
    assertThat(made).containsOnly(made.getFirst());
    Problem problem =
        problem(() -> sandboxes().create(OPERATION, ControlPlane.request(Optional.empty())));
    assertThat(problem).isInstanceOf(Problem.Capacity.class);
    assertThat(problem.code()).isEqualTo("sandbox-quota");
    assertThat(
            problem(() ->
                    sandboxes()
                        .create(
                            ControlPlane.keyed("POST /v1/sandboxes", "k", "other"),
                            ControlPlane.request(Optional.empty())))
                .code())
        .isEqualTo("idempotency-mismatch");
    sandboxes().destroy(OPERATION, made.getFirst());
    world.gone(made.getFirst());
    sandboxes().create(OPERATION, ControlPlane.request(Optional.empty()));
  }

  @Test
  void patchesListsAndDestroys() {
    Sandbox sandbox = world.ready();
    Sandbox patched =
        sandboxes()
            .patch(
                OPERATION,
                sandbox.id(),
                Optional.of(Duration.ofHours(1)),
                Optional.of(Map.of("a", "b")));
    assertThat(patched.expiresAt()).isAfter(sandbox.expiresAt());
    assertThat(patched.labels()).containsExactly(Map.entry("a", "b"));
    for (Duration ttl :
        List.of(Duration.ZERO, Duration.ofHours(2), Duration.ofSeconds(Long.MAX_VALUE))) {
      assertThat(
              problem(() ->
                  sandboxes().patch(OPERATION, sandbox.id(), Optional.of(ttl), Optional.empty())))
          .isInstanceOf(Problem.Invalid.class);
    }
    assertThat(
            sandboxes()
                .list(OPERATION, Map.of("a", "b"), Set.of(Phase.READY), Optional.empty(), 10))
        .extracting(Sandbox::id)
        .containsExactly(sandbox.id());
    assertThat(sandboxes().destroy(OPERATION, sandbox.id()).phase())
        .isIn(Phase.STOPPING, Phase.GONE);
    world.gone(sandbox.id());
    assertThat(sandboxes().destroy(OPERATION, sandbox.id()).phase()).isEqualTo(Phase.GONE);
    assertThat(world.sandbox(sandbox.id()).reason()).isEqualTo("destroyed by alice");
    assertThat(
            problem(() ->
                    sandboxes()
                        .patch(OPERATION, sandbox.id(), Optional.empty(), Optional.of(Map.of())))
                .code())
        .isEqualTo("sandbox-gone");
    assertThat(problem(() -> sandboxes().get(OPERATION, new Id("sbx0000000000000000"))))
        .isInstanceOf(Problem.NotFound.class);
  }

  @Test
  void environmentsOfSandboxAndCallReachTheProcess() {
    Sandbox sandbox = world.ready();
    world.ended(
        world
            .start(
                sandbox.id(),
                new ToolCall.ProcessStart(
                    List.of("true"), "/workspace", Map.of("A", "b"), Optional.empty(), false))
            .id());
    Message.StartProcess start =
        world.backend.agent(sandbox.id()).requests().stream()
            .filter(Message.StartProcess.class::isInstance)
            .map(Message.StartProcess.class::cast)
            .findFirst()
            .orElseThrow();
    assertThat(start.env()).containsEntry("A", "b").containsKey("HTTPS_PROXY");
  }
}
