package dev.foredeck.driver.local;

import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.host.Canary;
import dev.foredeck.driver.host.Command;
import dev.foredeck.driver.host.Deadline;
import dev.foredeck.driver.host.Findings;
import dev.foredeck.driver.host.HostNeeds;
import dev.foredeck.driver.host.KernelTables;
import dev.foredeck.driver.host.ProcessView;
import dev.foredeck.driver.host.UidSlots;
import dev.foredeck.policy.Boundary;
import dev.foredeck.policy.Isolation;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.random.RandomGenerator;

/// Finds out whether this host really enforces what the driver promises with one of its runtimes:
/// what the kernel says of a canary's process from outside, and what succeeds from inside.
final class Probe {
  private final LocalDriver driver;
  private final LocalConfig config;
  private final OciRuntime runtime;
  private final RandomGenerator random;
  private final List<String> findings = new ArrayList<>();

  /// @param runtime one of the two of `config`
  Probe(LocalDriver driver, LocalConfig config, OciRuntime runtime, RandomGenerator random) {
    this.driver = driver;
    this.config = config;
    this.runtime = runtime;
    this.random = random;
  }

  List<String> run(Deadline deadline) {
    return Findings.of(findings, () -> search(deadline));
  }

  private void search(Deadline deadline) throws DriverException, IOException {
    findings.addAll(HostNeeds.missing(driver.name(), config.places().agentBundle()));
    runtimeNeeds(deadline);
    if (findings.isEmpty()) {
      // With the isolation for which the driver takes the runtime under test.
      Isolation isolation =
          runtime.equals(config.runtime()) ? Isolation.STANDARD : Isolation.STRONG;
      new Canary(driver, random, deadline)
          .examine(HostTemplate.NAME, Boundary.NONE.with(isolation), this::examine);
    }
  }

  private void runtimeNeeds(Deadline deadline) throws IOException, DriverException.Failed {
    if (!HostNeeds.isInstalled(runtime.program())) {
      findings.add(
          "The OCI runtime "
              + runtime.program()
              + " is missing: install it ("
              + (runtime.hasItsOwnKernel()
                  ? "gVisor, https://gvisor.dev/docs/user_guide/install"
                  : "apt-get install runc, or dnf install runc")
              + ").");
    } else {
      String version = Command.run(deadline, runtime.program(), "--version").output();
      if (version.matches("(?s)runc version (0|1\\.0)\\..*")) {
        findings.add(
            "This runc is too old: 1.1 or newer is needed, this is " + line(version) + ".");
      }
      if (runtime.hasItsOwnKernel() != version.startsWith("runsc version ")) {
        findings.add(
            "The OCI runtime "
                + runtime.program()
                + " is not what its name says: it says "
                + line(version)
                + ".");
      }
    }
    String namespaces =
        KernelTables.readIfPresent(Path.of("/proc/sys/user/max_user_namespaces")).orElse("0");
    if (namespaces.strip().equals("0")) {
      findings.add(
          "User namespaces are switched off: allow them (sysctl user.max_user_namespaces=15000).");
    }
    Cgroups cgroups = Cgroups.detect(config.cgroupParent());
    if (!cgroups.missing().isEmpty()) {
      findings.add(
          "This host has no cgroup controller for "
              + String.join(", ", cgroups.missing())
              + ": mount cgroups (systemd does, and so does the package cgroupfs-mount).");
    }
    if (HostNeeds.swaps() && !cgroups.limitsSwap()) {
      findings.add(
          "Swap is on and the kernel does not count it: boot with swapaccount=1, or switch it off"
              + " (swapoff -a).");
    }
  }

  private static String line(String text) {
    return text.lines().findFirst().orElse("");
  }

  private void examine(Canary canary) throws DriverException, IOException {
    boolean ownKernel = runtime.hasItsOwnKernel();
    long pid = driver.pid(Canary.ID);
    ProcessView process = new ProcessView(pid);
    findings.addAll(process.namespaces(List.of("pid", "net", "ipc", "uts", "mnt", "user")));
    findings.addAll(process.confinement());
    users(pid, process);
    findings.addAll(process.network());
    findings.addAll(process.limits(OciConfig.onTheHost(Canary.RESOURCES, ownKernel)));
    if (ownKernel) {
      findings.addAll(canary.reach());
      findings.addAll(canary.ownKernel());
      // Of the limits only memory's is tried: each ends the whole sandbox.
      try {
        findings.addAll(canary.memory());
      } catch (DriverException | IOException _) {
        // The sandbox has ended, as it should.
      }
    } else {
      // Elsewhere its programs see the cgroups and mounts of their own kernel, which itself holds
      // capabilities in its user namespace.
      findings.addAll(process.namespaces(List.of("cgroup")));
      findings.addAll(process.capabilities());
      findings.addAll(process.mounts());
      findings.addAll(canary.reach());
      findings.addAll(canary.memory());
    }
    if (process.outOfMemoryKills() == 0) {
      findings.add("A sandbox that passes its memory limit is not stopped.");
    }
    if (!ownKernel) {
      findings.addAll(canary.processes());
    }
  }

  private void users(long pid, ProcessView process) throws IOException, DriverException {
    int first = UidSlots.firstUid(driver.slot(Canary.ID));
    for (String map : List.of("uid_map", "gid_map")) {
      String mapping = Files.readString(Path.of("/proc", Long.toString(pid), map)).strip();
      if (!List.of(mapping.split("\\s+"))
          .equals(List.of("0", Integer.toString(first), Integer.toString(UidSlots.RANGE)))) {
        findings.add("A sandbox's users are users of the host (" + map + ").");
      }
    }
    findings.addAll(process.users(first, UidSlots.RANGE));
  }
}
