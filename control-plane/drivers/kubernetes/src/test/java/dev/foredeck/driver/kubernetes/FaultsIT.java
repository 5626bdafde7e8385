package dev.foredeck.driver.kubernetes;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.AgentDialogue;
import dev.foredeck.core.driver.BackendState;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import dev.foredeck.policy.Boundary;
import io.fabric8.kubernetes.api.model.Node;
import io.fabric8.kubernetes.api.model.NodeBuilder;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfSystemProperty;

/// What happens to sandboxes when a part of the cluster, a pod, or the control plane is taken away.
/// Ten minutes long: `./foredeck test -Dforedeck.faults=true` runs it.
@EnabledIfSystemProperty(
    named = "foredeck.faults",
    matches = "true",
    disabledReason = "ten minutes: ./foredeck test -Dforedeck.faults=true")
@Timeout(value = 4, unit = TimeUnit.MINUTES)
class FaultsIT {
  private static final Duration TIMEOUT = Duration.ofSeconds(90);
  private static final Duration AWAY = Duration.ofSeconds(60);
  private static final Duration CUT = Duration.ofSeconds(30);
  private static final String TOKEN = "t0ken-of-the-faults";
  private static final Ids IDS = new Ids(Clock.systemUTC(), new SecureRandom());
  private static final int MANY = 20;

  private Cluster cluster;
  private KubernetesDriver driver;

  @BeforeEach
  void join() throws IOException {
    cluster = Cluster.join();
    driver = cluster.driver(config());
  }

  private KubernetesConfig config() {
    return cluster.config(Cluster.base(Optional.of("runc")));
  }

  @AfterEach
  void nothingIsLeft() throws Exception {
    try {
      for (BackendState state : driver.list(TIMEOUT)) {
        driver.destroy(state.sandbox(), TIMEOUT);
      }
      assertThat(cluster.client.pods().inNamespace(cluster.namespace).list().getItems()).isEmpty();
    } finally {
      driver.close();
      cluster.close();
    }
  }

  static LaunchSpec spec(Id sandbox) {
    return new LaunchSpec(
        sandbox,
        new Id("ten0000000000000faults"),
        "base",
        new Resources(50, 128L << 20, 32L << 20, 64),
        Boundary.NONE,
        TOKEN,
        Map.of(),
        Instant.parse("2100-01-01T00:00:00Z"));
  }

  private Id launched() throws DriverException {
    Id sandbox = IDS.sandbox();
    driver.launch(spec(sandbox), TIMEOUT);
    return sandbox;
  }

  private AgentDialogue.Outcome run(Id sandbox, String... argv) throws Exception {
    return AgentDialogue.run(driver.connect(sandbox, TOKEN, TIMEOUT), IDS.call().value(), argv);
  }

  private void answers(Id sandbox) throws Exception {
    assertThat(run(sandbox, "echo", "hello").text()).isEqualTo("hello\n");
  }

  private SteadyCall steady(Id sandbox) throws Exception {
    return new SteadyCall(driver, sandbox, TOKEN, IDS.call().value());
  }

  /// With an hour to wait: only noticing ends it.
  private void awaitNotThere(Id sandbox, String... why) {
    assertThatThrownBy(
            () -> {
              while (true) {
                driver.connect(sandbox, TOKEN, Duration.ofHours(1)).connection().close();
                Thread.sleep(200);
              }
            })
        .isInstanceOf(DriverException.NotThere.class)
        .hasMessageContainingAll(why);
  }

  @Test
  void callsGoOnWhileTheApiServerIsAwayAndCreatesFailClearly() throws Exception {
    Component.assumeOurs();
    Id sandbox = launched();
    Id other = IDS.sandbox();
    try (SteadyCall call = steady(sandbox)) {
      long began = System.nanoTime();
      Component.APISERVER.kill();
      try {
        answers(sandbox);
        assertThatThrownBy(() -> driver.launch(spec(other), TIMEOUT))
            .isInstanceOf(DriverException.Failed.class)
            .hasMessageContaining("the Kubernetes API server did not make it");
        assertThatThrownBy(() -> driver.destroy(sandbox, TIMEOUT))
            .isInstanceOf(DriverException.Failed.class)
            .hasMessageContaining("the Kubernetes API server did not remove its pod");
        assertThat(driver.inspect(sandbox, TIMEOUT))
            .contains(new BackendState(sandbox, Status.RUNNING, ""));
        Thread.sleep(Math.max(0, AWAY.toMillis() - (System.nanoTime() - began) / 1_000_000));
        call.goesOn();
        answers(sandbox);
      } finally {
        Component.APISERVER.start();
      }
      call.goesOn();
      driver.launch(spec(other), TIMEOUT);
      answers(other);
      call.endsWhole();
    }
  }

  @Test
  void callsGoOnWhileTheKubeletIsAwayAndCreatesWait() throws Exception {
    Component.assumeOurs();
    goesOnAndCreatesWait(Component.KUBELET);
  }

  @Test
  void callsGoOnWhileContainerdIsKilledAndCreatesWait() throws Exception {
    Component.assumeOurs();
    goesOnAndCreatesWait(Component.CONTAINERD);
  }

  private void goesOnAndCreatesWait(Component component) throws Exception {
    Id sandbox = launched();
    Id other = IDS.sandbox();
    try (SteadyCall call = steady(sandbox);
        ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      Future<Void> launch;
      component.kill();
      try {
        launch = threads.submit(launching(other));
        call.goesOn();
        answers(sandbox);
      } finally {
        component.start();
      }
      var _ = launch.get(TIMEOUT.toSeconds(), TimeUnit.SECONDS);
      answers(other);
      call.endsWhole();
    }
    assertThat(driver.list(TIMEOUT)).hasSize(2);
  }

  private Callable<Void> launching(Id sandbox) {
    return () -> {
      driver.launch(spec(sandbox), TIMEOUT);
      return null;
    };
  }

  @Test
  void aPodThatWasDeletedBehindOurBackIsNotThere() throws Exception {
    Id sandbox = launched();
    answers(sandbox);

    var _ =
        cluster
            .client
            .pods()
            .inNamespace(cluster.namespace)
            .withName(sandbox.value())
            .withGracePeriod(0)
            .delete();

    awaitNotThere(sandbox, "pod");
  }

  @Test
  void aSandboxThatOverrunsItsDiskIsSaidToBeEvicted() throws Exception {
    Component.assumeOurs();
    Id sandbox = launched();
    // Two: one file that is longer than the disk is refused to begin with.
    for (String file : List.of("one", "two")) {
      String fill = "head -c 40m /dev/zero > " + file;
      assertThat(run(sandbox, "sh", "-c", fill).exitCode()).isZero();
    }

    awaitNotThere(sandbox, "evicted", "exceeds");

    assertThat(driver.inspect(sandbox, TIMEOUT).orElseThrow().detail()).contains("evicted");
  }

  @Test
  void anAgentThatIsKilledForWantOfMemoryIsSaidToBe() throws Exception {
    Id sandbox = launched();
    // Files in memory stay when who wrote them is killed: in the end only the agent is left.
    String fill = "for f in /tmp/a /dev/shm/a /var/tmp/a; do head -c 200m /dev/zero > $f; done";
    long until = System.nanoTime() + TIMEOUT.toNanos();
    while (driver.inspect(sandbox, TIMEOUT).orElseThrow().status() != Status.EXITED) {
      assertThat(System.nanoTime() - until).as("the agent is killed").isNegative();
      try {
        var _ = run(sandbox, "sh", "-c", fill);
      } catch (DriverException.NotThere | IOException _) {
        // Killed before, or while we spoke with it.
      }
    }
    assertThat(driver.inspect(sandbox, TIMEOUT).orElseThrow().detail()).contains("out of memory");
  }

  @Test
  void anImageThatIsMissingIsNamed() throws Exception {
    Template base = Cluster.base(Optional.of("runc"));
    Template missing =
        new Template(
            "localhost/foredeck-no-such-image:1",
            base.runtimeClass(),
            base.userNamespace(),
            base.workspace(),
            base.nodeSelector(),
            base.tolerations(),
            base.imagePullSecrets(),
            base.priorityClass(),
            base.labels(),
            base.annotations());
    try (KubernetesDriver other = cluster.unguarded(cluster.config(missing))) {
      assertThatThrownBy(() -> other.launch(spec(IDS.sandbox()), TIMEOUT))
          .isInstanceOf(DriverException.Refused.class)
          .hasMessageContaining("localhost/foredeck-no-such-image:1")
          .hasMessageContaining("is not there or may not be pulled");
    }
  }

  @Test
  void aCordonedNodeKeepsItsSandboxesAndTakesNoOther() throws Exception {
    Component.assumeOurs();
    Id sandbox = launched();
    Id other = IDS.sandbox();
    String node = cluster.pod(sandbox).orElseThrow().getSpec().getNodeName();
    try (SteadyCall call = steady(sandbox)) {
      cordon(node, true);
      try {
        assertThatThrownBy(() -> driver.launch(spec(other), Duration.ofSeconds(5)))
            .isInstanceOf(DriverException.Full.class)
            .hasMessageContaining("unschedulable");
        call.goesOn();
      } finally {
        cordon(node, false);
      }
      driver.launch(spec(other), TIMEOUT);
      answers(other);
      call.endsWhole();
    }
  }

  private void cordon(String node, boolean unschedulable) {
    Node _ =
        cluster
            .client
            .nodes()
            .withName(node)
            .edit(n ->
                new NodeBuilder(n).editSpec().withUnschedulable(unschedulable).endSpec().build());
  }

  @Test
  void aNetworkThatIsCutForHalfAMinuteLosesNothing() throws Exception {
    Component.assumeOurs();
    Id sandbox = launched();
    String address = cluster.pod(sandbox).orElseThrow().getStatus().getPodIP();
    try (SteadyCall call = steady(sandbox)) {
      try (Cut _ = new Cut(address)) {
        Thread.sleep(CUT);
      }
      call.goesOn();
      answers(sandbox);
      call.endsWhole();
    }
  }

  @Test
  void aNodeThatIsLostIsSaidToBe() throws Exception {
    Component.assumeOurs();
    Id sandbox = launched();
    String address = cluster.pod(sandbox).orElseThrow().getStatus().getPodIP();
    try (SteadyCall call = steady(sandbox)) {
      Component.KUBELET.kill();
      try (Cut _ = new Cut(address)) {
        long until = System.nanoTime() + TIMEOUT.toNanos();
        while (PodView.lostNode(driver.pod(sandbox)).isEmpty()) {
          assertThat(System.nanoTime() - until).as("the cluster misses its node").isNegative();
          Thread.sleep(500);
        }
        assertThatThrownBy(() -> driver.connect(sandbox, TOKEN, Duration.ofSeconds(3)))
            .isInstanceOf(DriverException.Failed.class)
            .hasMessageContaining("has not been heard of since");
      } finally {
        Component.KUBELET.start();
      }
      call.goesOn();
      answers(sandbox);
      call.endsWhole();
    }
  }

  /// Drops every packet between this host and an address, until it is closed, or this process ends.
  private static final class Cut implements AutoCloseable {
    private static final String TABLE = "foredeck_test_cut_" + ProcessHandle.current().pid();

    private final Thread removal =
        new Thread(() -> {
          try {
            remove();
          } catch (IOException | InterruptedException | AssertionError _) {
            // The host is going down as well, or it was never made.
          }
        });

    Cut(String address) throws IOException, InterruptedException {
      Runtime.getRuntime().addShutdownHook(removal);
      Component.command(
          "nft",
          "table ip %1$s { chain o { type filter hook output priority 0; ip daddr %2$s drop; }; chain i { type filter hook input priority 0; ip saddr %2$s drop; }; }"
              .formatted(TABLE, address));
    }

    private static void remove() throws IOException, InterruptedException {
      Component.command("nft", "delete", "table", "ip", TABLE);
    }

    @Override
    public void close() throws IOException {
      try {
        remove();
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new IOException("interrupted while the network was being mended", e);
      }
      boolean _ = Runtime.getRuntime().removeShutdownHook(removal);
    }
  }

  @Test
  void aControlPlaneThatIsKilledWhileItCreatesLeavesNothingThatAnotherDoesNotTakeUp()
      throws Exception {
    List<Id> sandboxes = new ArrayList<>();
    for (int i = 0; i < MANY; i++) {
      sandboxes.add(IDS.sandbox());
    }
    Path keys = Files.createTempFile("foredeck-faults", ".pem");
    Path said = Files.createTempFile("foredeck-faults", ".log");
    Files.writeString(keys, cluster.tls.toPem());
    List<String> command =
        new ArrayList<>(
            List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-cp",
                System.getProperty("java.class.path"),
                DoomedControlPlane.class.getName(),
                keys.toString(),
                cluster.namespace,
                String.valueOf(cluster.gateway().getPort())));
    sandboxes.forEach(sandbox -> command.add(sandbox.value()));
    Process doomed =
        new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(said.toFile()).start();
    try {
      long until = System.nanoTime() + TIMEOUT.toNanos();
      while (driver.list(TIMEOUT).isEmpty()) {
        assertThat(doomed.isAlive() && System.nanoTime() - until < 0)
            .as("pods appear: %s", Files.readString(said))
            .isTrue();
        Thread.sleep(10);
      }
    } finally {
      Process _ = doomed.destroyForcibly();
      int _ = doomed.waitFor();
      Files.delete(keys);
      Files.delete(said);
    }

    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      for (Future<Void> launch :
          threads.invokeAll(sandboxes.stream().map(this::launching).toList())) {
        var _ = launch.get();
      }
    }

    for (Id sandbox : sandboxes) {
      answers(sandbox);
    }
    assertThat(driver.list(TIMEOUT))
        .extracting(BackendState::sandbox)
        .containsExactlyInAnyOrderElementsOf(sandboxes);
  }
}
