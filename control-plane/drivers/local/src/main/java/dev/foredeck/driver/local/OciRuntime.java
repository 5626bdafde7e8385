package dev.foredeck.driver.local;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/// The program that turns an OCI bundle into a sandbox. Two kinds are known, told apart by the
/// program's name: gVisor's is `runsc` or begins with it, anything else is taken for a `runc`.
///
/// @param program a name in the system's PATH, or an absolute path
public record OciRuntime(String program) {
  public static final OciRuntime RUNC = new OciRuntime("runc");
  public static final OciRuntime RUNSC = new OciRuntime("runsc");

  public OciRuntime {
    if (program.isEmpty() || (program.contains("/") && !program.startsWith("/"))) {
      throw new IllegalArgumentException(
          "an OCI runtime is a program's name or an absolute path, not " + program);
    }
  }

  /// Whether a sandbox has a kernel of its own (gVisor), so that its programs never make a system
  /// call of the host's.
  public boolean hasItsOwnKernel() {
    return Path.of(program).getFileName().toString().startsWith("runsc");
  }

  /// The command that starts a sandbox and returns.
  ///
  /// @param state the folder of what runtimes remember; a folder there with the sandbox's name is
  ///   what this one remembers of it
  /// @param log where the runtime says what went wrong
  String[] start(Path state, Path log, Path bundle, Path pidFile, String id) {
    List<String> argv = new ArrayList<>();
    argv.add(program);
    if (hasItsOwnKernel()) {
      // Everything that isolation hangs on is said, whatever a version's default is.
      argv.addAll(
          List.of(
              "--root=" + state.resolve(id),
              "--platform=systrap",
              "--network=none",
              // The agent dials the control plane's socket and the gateway's; none can be made.
              "--host-uds=open",
              // The read-only root stays read-only: no layer of memory above it.
              "--overlay2=none",
              // The same system calls are refused as by the host's own kernel.
              "--oci-seccomp=true",
              "--ignore-cgroups=false",
              "--gofer-network-namespace=new",
              "--net-raw=false",
              "--allow-suid=false"));
    } else {
      argv.add("--root=" + state);
    }
    argv.addAll(
        List.of(
            "--log=" + log, "run", "--detach", "--bundle=" + bundle, "--pid-file=" + pidFile, id));
    return argv.toArray(String[]::new);
  }
}
