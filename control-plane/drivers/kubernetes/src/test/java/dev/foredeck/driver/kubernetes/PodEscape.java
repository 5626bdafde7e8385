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
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/// What must not work in a pod. Its workspace is memory, so that its limit is a hard one: a sandbox
/// that fills its share of the node's disk is evicted, which is a fault and tested among those.
@Timeout(60)
abstract class PodEscape extends EscapeContract {
  private static final int KUBELET_PORT = 10_250;

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

  /// Less than half a core: three sandboxes are more than the cores of a small node.
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

  @Override
  protected Disk disk() {
    return Disk.MEMORY;
  }

  /// What the kubelet puts into a pod that no firewall's container seals (`network-policy`) is on
  /// the node's disk, and only this counts it.
  @Test
  void noFileGrowsWithoutEnd() throws Exception {
    String most = String.valueOf(SandboxPod.fileBytes(spec(Cluster.id(), Cluster.TOKEN)));
    String writeAt =
        "printf x | dd bs=1 oflag=seek_bytes seek=$1 of=/tmp/far && stat -c %s /tmp/far";

    fails(sh("ulimit -f unlimited"));
    fails(sh(writeAt, most));
    Outcome last = sh("rm -f /tmp/far; " + writeAt + "; rm /tmp/far", before(most));
    assertThat(last.text()).as(last.errors()).isEqualTo(most + "\n");
  }

  private static String before(String number) {
    return String.valueOf(Long.parseLong(number) - 1);
  }

  @Override
  protected List<String> sealedFolders() {
    return List.of("/run/foredeck/last-words/sealed");
  }
}
