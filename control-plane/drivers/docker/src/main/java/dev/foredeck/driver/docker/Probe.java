package dev.foredeck.driver.docker;

import com.github.dockerjava.api.command.InspectContainerResponse;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.host.Canary;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.Findings;
import dev.foredeck.driver.host.HostNeeds;
import dev.foredeck.driver.host.ProcessView;
import dev.foredeck.policy.Boundary;
import dev.foredeck.policy.Isolation;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.random.RandomGenerator;

/// Finds out whether this daemon really enforces what the driver promises: what the kernel says of
/// a canary's process from outside, and what succeeds from inside.
final class Probe {
  private final DockerDriver driver;
  private final DockerConfig config;
  private final Daemon daemon;
  private final RandomGenerator random;
  private final Isolation isolation;
  private final List<String> findings = new ArrayList<>();

  /// @param isolation what the canary is launched with
  Probe(
      DockerDriver driver,
      DockerConfig config,
      Daemon daemon,
      RandomGenerator random,
      Isolation isolation) {
    this.driver = driver;
    this.config = config;
    this.daemon = daemon;
    this.random = random;
    this.isolation = isolation;
  }

  List<String> run(Deadline deadline) {
    return Findings.of(findings, () -> search(deadline));
  }

  private void search(Deadline deadline) throws DriverException, IOException {
    findings.addAll(HostNeeds.missing(driver.name(), config.places().agentBundle()));
    if (findings.isEmpty()) {
      Daemon.Facts facts = daemon.facts(deadline);
      daemonNeeds(facts);
      if (findings.isEmpty()) {
        new Canary(driver, random, deadline)
            .examine(
                driver.templates().getFirst(),
                Boundary.NONE.with(isolation),
                canary -> examine(canary, facts, deadline));
      }
    }
  }

  private void daemonNeeds(Daemon.Facts facts) {
    if (facts.rootless()) {
      findings.add(
          "The Docker daemon at "
              + config.daemon()
              + " is rootless: sandboxes' disks and limits need one that runs as root.");
    }
    if (facts.operatingSystem().contains("Docker Desktop")) {
      findings.add(
          "The Docker daemon at "
              + config.daemon()
              + " is Docker Desktop's, in a virtual machine of its own: this host's sockets and"
              + " disks cannot be mounted there. Use a daemon that runs on this host, or run"
              + " Foredeck in the machine where the daemon is.");
    }
    if (HostNeeds.swaps() && !facts.limitsSwap()) {
      findings.add(
          "Swap is on and the Docker daemon cannot limit it: boot with swapaccount=1, or switch it"
              + " off (swapoff -a).");
    }
    config
        .runtime()
        .filter(runtime -> !facts.runtimes().contains(runtime))
        .ifPresent(runtime ->
            findings.add(
                "The Docker daemon has no runtime "
                    + runtime
                    + ", only "
                    + String.join(", ", facts.runtimes())
                    + "."));
  }

  private void examine(Canary canary, Daemon.Facts facts, Deadline deadline)
      throws DriverException, IOException {
    InspectContainerResponse container =
        daemon
            .container(deadline, DockerDriver.name(Canary.ID))
            .orElseThrow(() -> new DriverException.Failed("the probe's container is gone"));
    Long pid = container.getState().getPidLong();
    ProcessView process = new ProcessView(pid == null ? 0 : pid);
    if (!process.cgroups().contains(container.getId())) {
      findings.add(
          "The Docker daemon's processes are not this host's: is the daemon in a virtual machine,"
              + " or Foredeck in a container?");
      return;
    }
    boolean ownKernel = driver.hasItsOwnKernel(isolation);
    if (!ownKernel) {
      outside(process, facts);
    }
    findings.addAll(process.limits(Canary.RESOURCES));
    findings.addAll(canary.reach());
    if (ownKernel) {
      // There the host kills the sandbox's kernel, and with it the sandbox: nothing to run after.
      findings.addAll(canary.processes());
      return;
    }
    findings.addAll(canary.memory());
    if (process.outOfMemoryKills() == 0) {
      findings.add("A sandbox that passes its memory limit is not stopped.");
    }
    findings.addAll(canary.processes());
  }

  private void outside(ProcessView process, Daemon.Facts facts)
      throws IOException, DriverException {
    List<String> namespaces = new ArrayList<>(List.of("pid", "net", "ipc", "uts", "mnt", "cgroup"));
    if (facts.firstUid().isPresent()) {
      namespaces.add("user");
    }
    findings.addAll(process.namespaces(namespaces));
    findings.addAll(process.capabilities());
    findings.addAll(process.confinement());
    findings.addAll(process.users(driver.user(Canary.ID, facts), 1));
    findings.addAll(process.mounts());
    findings.addAll(process.network());
  }
}
