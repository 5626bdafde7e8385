package dev.foredeck.driver.local;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Resources;
import dev.foredeck.driver.host.AgentSettings;
import dev.foredeck.driver.host.OwnKernel;
import dev.foredeck.driver.host.SystemCalls;
import dev.foredeck.driver.host.UidSlots;
import dev.foredeck.driver.host.WritablePlaces;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;

/// Writes the runtime's `config.json`: where every promise of isolation is made. What it says is
/// deliberately all in one place, to be read from top to bottom.
final class OciConfig {
  /// The user that everything in a sandbox runs as.
  static final int USER = 1000;

  static final ObjectMapper JSON = new ObjectMapper();
  private static final int CPU_PERIOD_MICROS = 100_000;

  /// Files of `/proc` that tell of the host, or that reach into the kernel.
  private static final List<String> MASKED =
      List.of(
          "/proc/acpi",
          "/proc/asound",
          "/proc/interrupts",
          "/proc/kcore",
          "/proc/keys",
          "/proc/latency_stats",
          "/proc/sched_debug",
          "/proc/scsi",
          "/proc/timer_list",
          "/proc/timer_stats");

  private static final List<String> READ_ONLY =
      List.of("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger");

  private OciConfig() {}

  /// @param root the skeleton's folder
  /// @param binds folders of the host, bound at the same path
  /// @param argv of the agent
  /// @param env of the agent, as `K=V`
  /// @param firstUid the host's number of the sandbox's user 0
  /// @param ownKernel whether the runtime gives the sandbox a kernel of its own
  /// @param openFiles how many files each process may open
  record Spec(
      Path root,
      List<String> binds,
      Path agentBundle,
      Path socketFolder,
      Path workspace,
      List<String> argv,
      List<String> env,
      int firstUid,
      String cgroupsPath,
      boolean limitSwap,
      long openFiles,
      boolean ownKernel,
      WritablePlaces writable,
      Resources resources) {
    Spec {
      binds = List.copyOf(binds);
      argv = List.copyOf(argv);
      env = List.copyOf(env);
    }
  }

  static ObjectNode of(Spec spec) throws IOException {
    ObjectNode config = JSON.createObjectNode();
    config.put("ociVersion", "1.0.2");
    config.put("hostname", "sandbox");
    config.putObject("root").put("path", spec.root().toString()).put("readonly", true);
    config.set("process", process(spec));
    config.set("mounts", mounts(spec));
    config.set("linux", linux(spec));
    return config;
  }

  private static ObjectNode process(Spec spec) {
    ObjectNode process = JSON.createObjectNode();
    process.put("terminal", false);
    process.putObject("user").put("uid", USER).put("gid", USER);
    process.set("args", strings(spec.argv()));
    process.set("env", strings(spec.env()));
    process.put("cwd", WritablePlaces.WORKSPACE);
    process.put("noNewPrivileges", true);
    ObjectNode capabilities = process.putObject("capabilities");
    for (String set : List.of("bounding", "effective", "inheritable", "permitted", "ambient")) {
      capabilities.putArray(set);
    }
    ArrayNode limits = process.putArray("rlimits");
    limits
        .addObject()
        .put("type", "RLIMIT_NOFILE")
        .put("soft", spec.openFiles())
        .put("hard", spec.openFiles());
    limits.addObject().put("type", "RLIMIT_CORE").put("soft", 0).put("hard", 0);
    return process;
  }

  /// Read-only unless a [WritablePlaces] says otherwise, and never with devices or setuid programs.
  private static ArrayNode mounts(Spec spec) {
    ArrayNode mounts = JSON.createArrayNode();
    for (String bind : spec.binds()) {
      bind(mounts, Path.of(bind), bind, "ro");
    }
    mount(mounts, "proc", "/proc", "nosuid", "nodev", "noexec");
    mount(mounts, "tmpfs", "/dev", "nosuid", "noexec", "mode=755", "size=64k");
    mount(
        mounts,
        "devpts",
        "/dev/pts",
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
        "gid=5");
    // Memory, which counts as the sandbox's; half of it, so that a full /tmp alone kills nobody.
    String size = "size=" + spec.resources().memoryBytes() / 2;
    for (String place : List.of("/dev/shm", "/tmp", "/var/tmp")) {
      String mode = spec.writable().has(place) ? "rw" : "ro";
      mount(mounts, "tmpfs", place, "nosuid", "nodev", "mode=1777", size, mode);
    }
    mount(mounts, "tmpfs", "/run", "nosuid", "nodev", "noexec", "mode=755", "size=64k", "ro");
    if (spec.ownKernel()) {
      // gVisor mounts its own, whether it is asked to or not.
      mount(mounts, "sysfs", "/sys", "nosuid", "nodev", "noexec", "ro");
    }
    bind(mounts, spec.socketFolder(), AgentSettings.SOCKETS, "ro", "noexec");
    bind(mounts, spec.agentBundle(), AgentSettings.BUNDLE, "ro");
    bind(
        mounts,
        spec.workspace(),
        WritablePlaces.WORKSPACE,
        spec.writable().has(WritablePlaces.WORKSPACE) ? "rw" : "ro");
    return mounts;
  }

  private static void mount(ArrayNode mounts, String type, String at, String... options) {
    ObjectNode mount = mounts.addObject();
    mount.put("destination", at).put("type", type).put("source", type);
    mount.set("options", strings(List.of(options)));
  }

  private static void bind(ArrayNode mounts, Path source, String at, String... options) {
    ObjectNode mount = mounts.addObject();
    mount.put("destination", at).put("type", "bind").put("source", source.toString());
    ArrayNode all = mount.putArray("options").add("bind").add("nosuid").add("nodev");
    for (String option : options) {
      all.add(option);
    }
  }

  private static ObjectNode linux(Spec spec) throws IOException {
    ObjectNode linux = JSON.createObjectNode();
    ArrayNode namespaces = linux.putArray("namespaces");
    // A network namespace without a path is new and has nothing but loopback, which is up.
    for (String type : List.of("pid", "network", "ipc", "uts", "mount", "cgroup", "user")) {
      namespaces.addObject().put("type", type);
    }
    for (String mapping : List.of("uidMappings", "gidMappings")) {
      linux
          .putArray(mapping)
          .addObject()
          .put("containerID", 0)
          .put("hostID", spec.firstUid())
          .put("size", UidSlots.RANGE);
    }
    linux.put("cgroupsPath", spec.cgroupsPath());
    ObjectNode resources = linux.putObject("resources");
    ObjectNode memory = resources.putObject("memory");
    memory.put("limit", spec.resources().memoryBytes());
    if (spec.limitSwap()) {
      // Memory and swap together: no swap at all.
      memory.put("swap", spec.resources().memoryBytes());
    }
    resources.putObject("pids").put("limit", onTheHost(spec.resources(), spec.ownKernel()).pids());
    resources
        .putObject("cpu")
        .put("quota", (long) spec.resources().cpuMillis() * CPU_PERIOD_MICROS / 1000)
        .put("period", CPU_PERIOD_MICROS);
    ArrayNode devices = resources.putArray("devices");
    devices.addObject().put("allow", false).put("access", "rwm");
    linux.set(
        "seccomp", spec.ownKernel() ? SystemCalls.filterOfItsOwnKernel() : SystemCalls.filter());
    linux.put("rootfsPropagation", "private");
    linux.set("maskedPaths", strings(MASKED));
    linux.set("readonlyPaths", strings(READ_ONLY));
    return linux;
  }

  /// What the host has to allow for it.
  static Resources onTheHost(Resources asked, boolean ownKernel) {
    return ownKernel ? OwnKernel.onTheHost(asked) : asked;
  }

  private static ArrayNode strings(List<String> values) {
    ArrayNode array = JSON.createArrayNode();
    values.forEach(array::add);
    return array;
  }
}
