package dev.foredeck.systemtests;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.stream.Stream;

/// What a control plane's sandboxes left on this host, looked for from outside with nothing of
/// Foredeck's own code: processes, mounts, cgroups, loop devices, sockets, folders, user ranges,
/// containers, pods.
final class Leftovers {
  private static final long SETTLE_NANOS = 30_000_000_000L;

  private final Path data;
  private final String hash;
  private final String namespace;

  Leftovers(Plane plane) {
    this.data = plane.data();
    this.hash = hash(data);
    this.namespace = plane.namespace();
  }

  private static String hash(Path data) {
    try {
      byte[] digest =
          MessageDigest.getInstance("SHA-256")
              .digest(data.toString().getBytes(StandardCharsets.UTF_8));
      return HexFormat.of().formatHex(digest, 0, 4);
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }

  /// What is still there after a while: the kernel takes its time with the last of a process.
  List<String> findAfterSettling() {
    long end = System.nanoTime() + SETTLE_NANOS;
    while (true) {
      List<String> found = find();
      if (found.isEmpty() || System.nanoTime() > end) {
        return found;
      }
      Client.sleep(200);
    }
  }

  /// One line for each thing that is there.
  private List<String> find() {
    List<String> found = new ArrayList<>();
    String run = "/run/foredeck-" + hash;
    for (String line : lines(Path.of("/proc/self/mountinfo"))) {
      if (line.contains("sbx") && (line.contains(run) || line.contains(data.toString()))) {
        found.add("mount: " + line);
      }
    }
    children(Path.of("/sys/block"))
        .filter(device -> device.getFileName().toString().startsWith("loop"))
        .forEach(device -> {
          for (String file : lines(device.resolve("loop/backing_file"))) {
            if (file.startsWith(data.toString())) {
              found.add("loop device: " + device.getFileName() + " " + file);
            }
          }
        });
    children(Path.of("/proc"))
        .filter(process -> process.getFileName().toString().matches("[0-9]+"))
        .forEach(process -> {
          for (String line : lines(process.resolve("cgroup"))) {
            if (line.contains("foredeck-" + hash)) {
              found.add("process: " + process.getFileName() + " " + line);
              break;
            }
          }
        });
    Stream.concat(Stream.of(Path.of("/sys/fs/cgroup")), children(Path.of("/sys/fs/cgroup")))
        .map(controller -> controller.resolve("foredeck-" + hash))
        .filter(Files::isDirectory)
        .flatMap(Leftovers::children)
        .filter(Files::isDirectory)
        .forEach(cgroup -> found.add("cgroup: " + cgroup));
    for (Path folder : List.of(Path.of(run), data.resolve("sandboxes"))) {
      walk(folder)
          .filter(path -> path.getFileName().toString().startsWith("sbx"))
          .forEach(path -> found.add("folder: " + path));
    }
    walk(Path.of("/run/foredeck-uids"))
        .filter(Files::isSymbolicLink)
        .forEach(slot -> {
          try {
            // A claim is a link whose target names its owner.
            if (Files.readSymbolicLink(slot).startsWith(run)) {
              found.add("user range: " + slot);
            }
          } catch (IOException _) {
            // Released while we looked.
          }
        });
    switch (Plane.DRIVER) {
      case "docker" ->
          said(
                  "docker",
                  "ps",
                  "--all",
                  "--quiet",
                  "--filter",
                  "label=dev.foredeck.deployment=" + hash)
              .forEach(container -> found.add("container: " + container));
      case "kubernetes" -> inCluster(found);
      default -> {}
    }
    return found;
  }

  /// What a pod of ours consists of or could have made, in the sandboxes' namespace.
  private void inCluster(List<String> found) {
    if (said("kubectl", "get", "namespace", namespace, "--ignore-not-found", "--output=name")
        .isEmpty()) {
      return;
    }
    for (String kind :
        List.of("pods", "secrets", "persistentvolumeclaims", "services", "networkpolicies")) {
      found.addAll(said("kubectl", "get", kind, "--namespace", namespace, "--output=name"));
    }
    // The setup: the namespace's own certificate, and what the admission policy compares with.
    said("kubectl", "get", "configmaps", "--namespace", namespace, "--output=name").stream()
        .filter(name -> !name.matches("configmap/(kube-root-ca.crt|foredeck-sandboxes)"))
        .forEach(found::add);
  }

  /// What the backend says through its own command, found as everybody would: `DOCKER_HOST`,
  /// `KUBECONFIG`.
  private static List<String> said(String... command) {
    try {
      List<String> bounded = new ArrayList<>(List.of("timeout", "30"));
      bounded.addAll(List.of(command));
      Process process = new ProcessBuilder(bounded).redirectErrorStream(true).start();
      List<String> said = process.inputReader().lines().filter(line -> !line.isBlank()).toList();
      if (process.waitFor() != 0) {
        throw new IllegalStateException(String.join(" ", command) + ": " + said);
      }
      return said.stream().filter(line -> !line.startsWith("No resources found")).toList();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException(e);
    }
  }

  private static List<String> lines(Path file) {
    try {
      return Files.readAllLines(file);
    } catch (IOException _) {
      // It went while we looked, or it is not a file.
      return List.of();
    }
  }

  private static Stream<Path> children(Path folder) {
    try (Stream<Path> list = Files.list(folder)) {
      return list.toList().stream();
    } catch (NoSuchFileException _) {
      return Stream.empty();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static Stream<Path> walk(Path folder) {
    if (!Files.isDirectory(folder)) {
      return Stream.empty();
    }
    try (Stream<Path> tree = Files.walk(folder, 2)) {
      return tree.toList().stream();
    } catch (IOException | UncheckedIOException _) {
      return Stream.empty();
    }
  }
}
