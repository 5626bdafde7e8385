package dev.foredeck.driver.kubernetes;

import static org.assertj.core.api.Assertions.assertThat;

import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.core.driver.AgentDialogue.Outcome;
import dev.foredeck.core.driver.Driver;
import dev.foredeck.core.driver.EscapeContract;
import dev.foredeck.core.driver.LaunchSpec;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.file.Path;
import java.util.EnumSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/// What must not work in a pod. Its workspace is memory, so that its limit is a hard one: what a
/// sandbox on the node's disk meets is a fault, and among those ([FaultsIT]).
@Timeout(60)
abstract class PodEscape extends EscapeContract {
  private static final int KUBELET_PORT = 10_250;
  private static final String LAST_WORDS = "/dev/termination-log";

  private final Cluster cluster = Cluster.join();
  private final KubernetesDriver driver;

  PodEscape(String runtimeClass) throws IOException {
    Template base = Cluster.base(Optional.of(runtimeClass));
    driver = cluster.driver(cluster.config(Cluster.with(base, new Template.Workspace.Memory())));
  }

  @Override
  protected Driver driver() {
    return driver;
  }

  @Override
  protected void release() throws IOException {
    driver.close();
    cluster.close();
  }

  @Override
  protected List<Path> hostPaths(Id neighbour) {
    return cluster.hostPaths(neighbour);
  }

  @Override
  protected Set<Tool> tools() {
    return EnumSet.of(Tool.PYTHON3, Tool.GIT, Tool.PERL, Tool.COREUTILS, Tool.NAMES, Tool.TERMINAL);
  }

  @Override
  protected List<InetSocketAddress> forbidden(Id neighbour) {
    URI api = URI.create(cluster.client.getMasterUrl().toString());
    var pod = cluster.pod(neighbour).orElseThrow().getStatus();
    return List.of(
        new InetSocketAddress(api.getHost(), api.getPort()),
        new InetSocketAddress(pod.getHostIP(), KUBELET_PORT),
        new InetSocketAddress(pod.getPodIP(), KubernetesConfig.AGENT_PORT));
  }

  @Override
  protected InetSocketAddress gateway() {
    return cluster.gateway();
  }

  @Override
  protected Network network() {
    return Network.FIREWALLED;
  }

  @Override
  protected AgentDoor agentDoor() {
    return new AgentDoor.Listens(KubernetesConfig.AGENT_PORT);
  }

  @Override
  protected Filter filter() {
    return Filter.THE_RUNTIMES;
  }

  /// Half a core: three sandboxes are more than the cores of a small node.
  @Override
  protected LaunchSpec spec(Id id, String token) {
    LaunchSpec spec = super.spec(id, token);
    Resources all = spec.resources();
    return new LaunchSpec(
        id,
        spec.tenant(),
        spec.template(),
        new Resources(400, all.memoryBytes(), all.diskBytes(), all.pids()),
        spec.boundary(),
        token,
        spec.labels(),
        spec.expiresAt());
  }

  /// Beside the usual: message queues, which are memory of this sandbox's own and few
  /// (RLIMIT_MSGQUEUE), and the kubelet's file for a container's last words, which [#LAST_WORDS]
  /// bounds. Runtime and kubelet mount them in every pod.
  @Override
  protected Pattern writableFiles() {
    return Pattern.compile(super.writableFiles() + "|/dev/mqueue|" + LAST_WORDS);
  }

  /// It lies on the node's disk and no quota counts it: only the limit of a file's length does.
  @Test
  void theKubeletsOwnFileDoesNotGrowWithoutEnd() throws Exception {
    long most = SandboxPod.fileBytes(spec(Cluster.id(), Cluster.TOKEN));

    fails(sh("ulimit -f unlimited"));
    fails(
        sh(
            "printf x | dd bs=1 oflag=seek_bytes conv=notrunc seek=$2 of=$1",
            LAST_WORDS,
            "" + most));
    Outcome last =
        sh(
            "printf x | dd bs=1 oflag=seek_bytes conv=notrunc seek=$2 of=$1 && stat -c %s $1; : >"
                + " $1",
            LAST_WORDS, "" + (most - 1));
    assertThat(last.text()).as(last.errors()).isEqualTo(most + "\n");
  }

  @Override
  protected Sysfs sysfs() {
    return Sysfs.READ_ONLY;
  }
}
