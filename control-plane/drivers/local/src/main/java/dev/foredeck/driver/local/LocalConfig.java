package dev.foredeck.driver.local;

import dev.foredeck.core.Hashes;
import dev.foredeck.core.Id;
import dev.foredeck.driver.host.Folder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;

/// Where the local driver keeps what it makes, and how much it may make.
///
/// @param dataDir holds `sandboxes/<id>`: what survives a reboot (the disks)
/// @param runDir holds sockets, root file systems and the runtime's state: gone after a reboot. It
///   must be short, and every user must be able to enter its parents
/// @param uidSlots shared by all control planes of this host, so that no two sandboxes share users
/// @param agentBundle the folder that `sandbox-agent/agent/bundle.sh` made
/// @param runtime what makes sandboxes
/// @param strongRuntime what makes those whose policy demands isolation `strong`: the same one, or
///   another that may be missing, and then such sandboxes are refused
/// @param maxSandboxes on this host, by this driver
/// @param minFreeBytes disk space that a launch must leave for everything else
public record LocalConfig(
    Path dataDir,
    Path runDir,
    Path uidSlots,
    Path agentBundle,
    OciRuntime runtime,
    OciRuntime strongRuntime,
    int maxSandboxes,
    long minFreeBytes) {

  /// `sun_path` of the kernel, its closing NUL taken off.
  private static final int SOCKET_PATH_BYTES = 107;

  private static final int LONGEST_ID = 41;

  public LocalConfig {
    dataDir = dataDir.toAbsolutePath().normalize();
    runDir = runDir.toAbsolutePath().normalize();
    uidSlots = uidSlots.toAbsolutePath().normalize();
    agentBundle = agentBundle.toAbsolutePath().normalize();
    if (!strongRuntime.hasItsOwnKernel()) {
      throw new IllegalArgumentException(
          "strongRuntime must be gVisor's runsc, not " + strongRuntime.program());
    }
    if (maxSandboxes < 1 || minFreeBytes < 0) {
      throw new IllegalArgumentException(
          "maxSandboxes must be at least 1 and minFreeBytes at least 0");
    }
    Path longest = runDir.resolve("s").resolve("x".repeat(LONGEST_ID)).resolve("egress.sock.new");
    int bytes = longest.toString().getBytes(StandardCharsets.UTF_8).length;
    if (bytes > SOCKET_PATH_BYTES) {
      throw new IllegalArgumentException(
          "runDir "
              + runDir
              + " is too long: the socket paths below it would have "
              + bytes
              + " bytes and the kernel takes "
              + SOCKET_PATH_BYTES);
    }
  }

  /// The places and limits that a host gets when its operator names none.
  public static LocalConfig of(Path dataDir, Path agentBundle) {
    return of(dataDir, agentBundle, OciRuntime.RUNC, OciRuntime.RUNSC);
  }

  /// The same, with these runtimes.
  ///
  /// @param runsc for policies that demand isolation `strong`, where `runtime` is not gVisor's
  public static LocalConfig of(
      Path dataDir, Path agentBundle, OciRuntime runtime, OciRuntime runsc) {
    return new LocalConfig(
        dataDir,
        Path.of("/run/foredeck-" + hash(dataDir)),
        Path.of("/run/foredeck-uids"),
        agentBundle,
        runtime,
        runtime.hasItsOwnKernel() ? runtime : runsc,
        64,
        1L << 30);
  }

  /// Eight hexadecimal digits that tell data folders apart.
  static String hash(Path dataDir) {
    byte[] path = dataDir.toAbsolutePath().normalize().toString().getBytes(StandardCharsets.UTF_8);
    return Hashes.sha256(path).substring(0, 8);
  }

  Path sandboxes() {
    return dataDir.resolve("sandboxes");
  }

  /// Root only: the sockets in its folders are reachable through a sandbox's mount alone.
  Path sockets() {
    return runDir.resolve("s");
  }

  Path socketFolder(Id sandbox) {
    return sockets().resolve(sandbox.value());
  }

  Path roots() {
    return runDir.resolve("roots");
  }

  Path runtimeState() {
    return runDir.resolve("runtime");
  }

  /// The name of our parent cgroup.
  String cgroupParent() {
    return "foredeck-" + hash(dataDir);
  }

  Folder folder(Id sandbox) {
    return new Folder(sandboxes().resolve(sandbox.value()));
  }
}
