package dev.foredeck.driver.docker;

import com.github.dockerjava.api.command.InspectContainerResponse;
import dev.foredeck.core.driver.BackendState.Status;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.host.Canary;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.Findings;
import dev.foredeck.driver.host.HostNeeds;
import dev.foredeck.driver.host.OwnKernel;
import dev.foredeck.driver.host.ProcessView;
import dev.foredeck.policy.Boundary;
import dev.foredeck.policy.Isolation;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.random.RandomGenerator;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Finds out whether this daemon really enforces what the driver promises: what the kernel says of
/// a canary's process from outside, and what succeeds from inside.
final class Probe {
  private static final Logger LOG = LoggerFactory.getLogger(Probe.class);
  private static final String NOT_STOPPED =
      "A sandbox that passes its memory limit is not stopped.";

  /// For the kernel to kill.
  private static final Duration STOP = Duration.ofSeconds(5);

  private static final List<String> NAMESPACES = List.of("pid", "net", "ipc", "uts", "mnt");

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
            .container(deadline, driver.container(Canary.ID))
            .orElseThrow(() -> new DriverException.Failed("the probe's container is gone"));
    Long pid = container.getState().getPidLong();
    ProcessView process = new ProcessView(pid == null ? 0 : pid);
    if (!process.cgroups().contains(container.getId())) {
      findings.add(
          "The Docker daemon's containers have no control group of this host: is the daemon in a"
              + " virtual machine, or Foredeck in a container, or does its runtime ignore them?");
      return;
    }
    if (driver.hasItsOwnKernel(isolation)) {
      ownKernel(canary, process, deadline);
    } else {
      hostKernel(canary, process, facts);
    }
  }

  private void hostKernel(Canary canary, ProcessView process, Daemon.Facts facts)
      throws DriverException, IOException {
    findings.addAll(process.namespaces(NAMESPACES));
    findings.addAll(process.namespaces(List.of("cgroup")));
    if (facts.firstUid().isPresent()) {
      findings.addAll(process.namespaces(List.of("user")));
    }
    findings.addAll(process.capabilities());
    findings.addAll(process.confinement());
    findings.addAll(process.users(driver.user(Canary.ID, facts), 1));
    findings.addAll(process.mounts());
    findings.addAll(process.network());
    findings.addAll(process.limits(Canary.RESOURCES));
    findings.addAll(canary.reach());
    findings.addAll(canary.memory());
    if (process.outOfMemoryKills() == 0) {
      findings.add(NOT_STOPPED);
    }
    findings.addAll(canary.processes());
  }

  /// From outside, its process is its kernel: what programs may is asked of them.
  private void ownKernel(Canary canary, ProcessView process, Deadline deadline)
      throws DriverException, IOException {
    findings.addAll(process.namespaces(NAMESPACES));
    if (process.hasRootOfTheHost()) {
      findings.add(
          "A sandbox's own kernel may be the host's root: give the daemon user namespaces"
              + " (userns-remap), or its runtime "
              + config.runtime().orElse(DockerConfig.STRONG_RUNTIME)
              + " the argument --directfs=false.");
    }
    findings.addAll(process.confinement());
    findings.addAll(process.network());
    findings.addAll(process.limits(OwnKernel.onTheHost(Canary.RESOURCES)));
    findings.addAll(canary.ownKernel());
    findings.addAll(canary.reach());
    // Of the limits only memory's is tried: it may end the sandbox, and that of processes was read.
    try {
      findings.addAll(canary.memory());
    } catch (DriverException | IOException e) {
      LOG.debug("the canary has ended, as it may", e);
    }
    if (!stops(process, deadline.atMost(STOP))) {
      findings.add(NOT_STOPPED);
    }
  }

  /// Whether too much memory was noticed: the host kills one of the processes that the sandbox is
  /// to it, and with most of them the sandbox ends.
  private boolean stops(ProcessView process, Deadline deadline)
      throws DriverException, IOException {
    while (driver.inspect(Canary.ID, STOP).filter(s -> s.status() == Status.RUNNING).isPresent()
        && process.outOfMemoryKills() == 0) {
      if (deadline.passed()) {
        return false;
      }
      deadline.pause("see the probe's sandbox stopped");
    }
    return true;
  }
}
