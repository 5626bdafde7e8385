package dev.foredeck.driver.docker;

import com.fasterxml.jackson.databind.JsonNode;
import com.github.dockerjava.api.command.CreateContainerCmd;
import com.github.dockerjava.api.model.Capability;
import com.github.dockerjava.api.model.HealthCheck;
import com.github.dockerjava.api.model.HostConfig;
import com.github.dockerjava.api.model.LogConfig;
import com.github.dockerjava.api.model.Mount;
import com.github.dockerjava.api.model.MountType;
import com.github.dockerjava.api.model.RestartPolicy;
import com.github.dockerjava.api.model.Ulimit;
import dev.foredeck.core.Resources;
import dev.foredeck.driver.host.AgentSettings;
import dev.foredeck.driver.host.EtcFiles;
import dev.foredeck.driver.host.OwnKernel;
import dev.foredeck.driver.host.SystemCalls;
import dev.foredeck.driver.host.WritablePlaces;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeSet;

/// What the daemon is told of a container: where every promise of isolation is made. What it says
/// is deliberately all in one place, to be read from top to bottom.
final class Posture {
  private static final long CPU_PERIOD_MICROS = 100_000;

  private Posture() {}

  /// @param argv of the agent
  /// @param environment of the agent, as `K=V`
  /// @param uid of everything in the container, as the container's users are numbered
  /// @param etc a folder with [EtcFiles], which cover the image's
  /// @param runtime empty: the daemon's default
  /// @param ownKernel whether that runtime gives the sandbox a kernel of its own
  record Spec(
      List<String> argv,
      List<String> environment,
      int uid,
      Path workspace,
      Path socketFolder,
      Path agentBundle,
      Path etc,
      WritablePlaces writable,
      Resources resources,
      Optional<String> runtime,
      boolean ownKernel,
      Map<String, String> labels) {
    Spec {
      argv = List.copyOf(argv);
      environment = List.copyOf(environment);
      labels = Map.copyOf(labels);
    }
  }

  static CreateContainerCmd apply(CreateContainerCmd create, Spec spec) {
    return create
        .withHostName("sandbox")
        .withUser(spec.uid() + ":" + spec.uid())
        .withWorkingDir(WritablePlaces.WORKSPACE)
        .withEntrypoint(spec.argv())
        .withCmd(List.of())
        .withEnv(spec.environment())
        // An image's own check would run programs that no gate has seen.
        .withHealthcheck(new HealthCheck().withTest(List.of("NONE")))
        .withLabels(spec.labels())
        .withHostConfig(host(spec));
  }

  private static HostConfig host(Spec spec) {
    Resources resources =
        spec.ownKernel() ? OwnKernel.onTheHost(spec.resources()) : spec.resources();
    HostConfig host =
        HostConfig.newHostConfig()
            .withNetworkMode("none")
            // The daemon takes ::1 from loopback, which programs expect.
            .withSysctls(Map.of("net.ipv6.conf.lo.disable_ipv6", "0"))
            // No /dev/shm of the daemon's: it would be memory of the host with a mount of its own.
            .withIpcMode("none")
            .withCgroupnsMode("private")
            .withReadonlyRootfs(true)
            .withCapDrop(Capability.ALL)
            .withSecurityOpts(List.of("no-new-privileges", "seccomp=" + systemCalls(spec)))
            .withPrivileged(false)
            .withInit(false)
            .withAutoRemove(false)
            .withRestartPolicy(RestartPolicy.noRestart())
            .withLogConfig(new LogConfig(LogConfig.LoggingType.NONE))
            .withMemory(resources.memoryBytes())
            // Memory and swap together: no swap at all.
            .withMemorySwap(resources.memoryBytes())
            .withOomKillDisable(false)
            .withPidsLimit((long) resources.pids())
            .withCpuPeriod(CPU_PERIOD_MICROS)
            .withCpuQuota(resources.cpuMillis() * CPU_PERIOD_MICROS / 1000)
            .withUlimits(
                List.of(
                    new Ulimit("nofile", AgentSettings.openFiles(), AgentSettings.openFiles()),
                    new Ulimit("core", 0L, 0L)))
            .withTmpFs(tmpfs(spec))
            .withMounts(binds(spec));
    return spec.runtime().map(host::withRuntime).orElse(host);
  }

  private static JsonNode systemCalls(Spec spec) {
    try {
      return spec.ownKernel() ? SystemCalls.filterOfItsOwnKernel() : SystemCalls.filter();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static Map<String, String> tmpfs(Spec spec) {
    Map<String, String> mounts = new LinkedHashMap<>();
    // Memory, which counts as the sandbox's; half of it, so that a full /tmp alone kills nobody.
    String size = ",size=" + spec.resources().memoryBytes() / 2;
    for (String place : List.of("/dev/shm", "/tmp", "/var/tmp")) {
      String mode = spec.writable().has(place) ? "rw" : "ro";
      mounts.put(place, mode + ",exec,nosuid,nodev,mode=1777" + size);
    }
    // What the daemon would show here tells of the host, or can be written by everybody.
    for (String place : List.of("/run", "/sys", "/sys/fs/cgroup", "/dev/mqueue")) {
      mounts.put(place, "ro,noexec,nosuid,nodev,mode=755,size=64k");
    }
    return mounts;
  }

  private static List<Mount> binds(Spec spec) {
    List<Mount> mounts = new ArrayList<>();
    mounts.add(
        bind(
            spec.workspace(),
            WritablePlaces.WORKSPACE,
            !spec.writable().has(WritablePlaces.WORKSPACE)));
    mounts.add(bind(spec.socketFolder(), AgentSettings.SOCKETS, true));
    mounts.add(bind(spec.agentBundle(), AgentSettings.BUNDLE, true));
    for (String file : new TreeSet<>(EtcFiles.of(spec.uid()).keySet())) {
      mounts.add(bind(spec.etc().resolve(file), "/etc/" + file, true));
    }
    return mounts;
  }

  private static Mount bind(Path source, String at, boolean readOnly) {
    return new Mount()
        .withType(MountType.BIND)
        .withSource(source.toString())
        .withTarget(at)
        .withReadOnly(readOnly);
  }
}
