package dev.foredeck.cli;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileVisitOption;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.EnumSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/// Looks on this host for what a control plane with a data folder of its own may have left:
/// processes, mounts, loop devices, cgroups, and the folders where runtimes keep containers and
/// sockets. It looks for the names that all of these bear, and trusts nobody's account.
///
/// @param root of the host's file system; another in tests
/// @param data the control plane's data folder
/// @param sandboxes that were in it
/// @param daemon is asked for containers and volumes, where sandboxes were containers of its
record Leftovers(Path root, Path data, Set<String> sandboxes, Optional<DockerDaemon> daemon) {
  private static final int CGROUP_DEPTH = 5;
  private static final int MOST_BYTES = 4 * 1024 * 1024;

  Leftovers {
    sandboxes = Set.copyOf(sandboxes);
  }

  /// One line for each thing that is still there, the data folder itself left out.
  List<String> find() {
    List<String> found = new ArrayList<>();
    processes(found);
    mounts(found);
    loopDevices(found);
    cgroups(found);
    claims(found);
    daemon.ifPresent(asked -> containers(asked, found));
    Path run = runFolder();
    if (Files.exists(run, LinkOption.NOFOLLOW_LINKS)) {
      found.add("folder " + shown(run));
    }
    return List.copyOf(found);
  }

  /// Takes away the empty frame that a host keeps for its control plane's next start: this one has
  /// none. Only where nothing runs or is mounted there any more.
  void removeFrame() throws IOException {
    if (find().stream().anyMatch(left -> left.startsWith("process") || left.startsWith("mount"))) {
      return;
    }
    removeTree(runFolder());
    for (Path group : cgroupFolders()) {
      try (Stream<Path> tree = Files.walk(group)) {
        List<Path> folders =
            tree.filter(Files::isDirectory).sorted(Comparator.reverseOrder()).toList();
        for (Path folder : folders) {
          Files.deleteIfExists(folder);
        }
      } catch (IOException | UncheckedIOException e) {
        // The kernel refuses while something is in it: `find` reports it.
      }
    }
  }

  /// Deletes a folder with everything in it, and follows no link.
  static void removeTree(Path folder) throws IOException {
    if (!Files.exists(folder, LinkOption.NOFOLLOW_LINKS)) {
      return;
    }
    Files.walkFileTree(
        folder,
        EnumSet.noneOf(FileVisitOption.class),
        Integer.MAX_VALUE,
        new SimpleFileVisitor<>() {
          @Override
          public FileVisitResult visitFile(Path file, BasicFileAttributes attributes)
              throws IOException {
            Files.delete(file);
            return FileVisitResult.CONTINUE;
          }

          @Override
          public FileVisitResult visitFileFailed(Path file, IOException failure)
              throws IOException {
            if (failure instanceof NoSuchFileException) {
              return FileVisitResult.CONTINUE;
            }
            throw failure;
          }

          @Override
          public FileVisitResult postVisitDirectory(Path visited, @Nullable IOException failure)
              throws IOException {
            Files.delete(visited);
            return FileVisitResult.CONTINUE;
          }
        });
  }

  private void processes(List<String> found) {
    long self = ProcessHandle.current().pid();
    for (Path process : list(root.resolve("proc"))) {
      String name = process.getFileName().toString();
      if (!name.matches("[0-9]+") || name.equals(Long.toString(self))) {
        continue;
      }
      String command = read(process.resolve("cmdline")).replace('\0', ' ').strip();
      if (isOurs(command)) {
        found.add("process " + name + ": " + command);
      }
    }
  }

  private void mounts(List<String> found) {
    for (String line : read(root.resolve("proc/self/mountinfo")).split("\n")) {
      if (isOurs(line)) {
        String[] fields = line.split(" ");
        found.add("mount " + (fields.length > 4 ? fields[4] : line));
      }
    }
  }

  private void loopDevices(List<String> found) {
    for (Path device : list(root.resolve("sys/block"))) {
      String backing = read(device.resolve("loop/backing_file"));
      if (isOurs(backing)) {
        found.add("loop device " + device.getFileName() + " on " + backing.strip());
      }
    }
  }

  /// Ranges of users, each a link whose target names its owner.
  private void claims(List<String> found) {
    for (Path claim : list(root.resolve("run/foredeck-uids"))) {
      try {
        if (isOurs(Files.readSymbolicLink(claim).toString())) {
          found.add("range of users " + shown(claim));
        }
      } catch (IOException | UnsupportedOperationException e) {
        // Released while we looked, or no claim.
      }
    }
  }

  /// The Docker driver's containers bear the deployment's name, and have folders of it mounted.
  private void containers(DockerDaemon asked, List<String> found) {
    String deployment = frameName().substring("foredeck-".length());
    try {
      found.addAll(asked.things(text -> isOurs(text) || text.contains('"' + deployment + '"')));
    } catch (IOException e) {
      found.add("what the Docker daemon at " + asked.socket() + " has: " + e.getMessage());
    }
  }

  private void cgroups(List<String> found) {
    for (Path group : cgroupFolders()) {
      found.add("cgroup " + shown(group));
    }
  }

  /// The highest ones that bear our name: with version 1 there is one for each controller.
  private List<Path> cgroupFolders() {
    List<Path> found = new ArrayList<>();
    Path top = root.resolve("sys/fs/cgroup");
    if (!Files.isDirectory(top)) {
      return found;
    }
    try {
      Files.walkFileTree(
          top,
          EnumSet.noneOf(FileVisitOption.class),
          CGROUP_DEPTH,
          new SimpleFileVisitor<>() {
            @Override
            public FileVisitResult preVisitDirectory(Path folder, BasicFileAttributes attributes) {
              if (bearsOurName(folder.getFileName().toString())) {
                found.add(folder);
                return FileVisitResult.SKIP_SUBTREE;
              }
              return FileVisitResult.CONTINUE;
            }

            @Override
            public FileVisitResult visitFileFailed(Path file, IOException failure) {
              // Cgroups of others come and go while we look.
              return FileVisitResult.CONTINUE;
            }
          });
    } catch (IOException e) {
      found.add(top);
    }
    return found;
  }

  private boolean isOurs(String text) {
    return text.contains(data.toString())
        || text.contains(shown(runFolder()))
        || sandboxes.stream().anyMatch(text::contains);
  }

  private boolean bearsOurName(String name) {
    return name.equals(frameName()) || sandboxes.stream().anyMatch(name::contains);
  }

  /// The local driver's names for what belongs to one data folder.
  private String frameName() {
    try {
      byte[] path = data.toAbsolutePath().normalize().toString().getBytes(StandardCharsets.UTF_8);
      byte[] digest = MessageDigest.getInstance("SHA-256").digest(path);
      return "foredeck-" + HexFormat.of().formatHex(digest, 0, 4);
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every Java has SHA-256", e);
    }
  }

  private Path runFolder() {
    return root.resolve("run").resolve(frameName());
  }

  /// As the host sees it.
  private String shown(Path path) {
    return "/" + root.relativize(path);
  }

  private static List<Path> list(Path folder) {
    try (Stream<Path> entries = Files.list(folder)) {
      return entries.sorted().toList();
    } catch (IOException e) {
      return List.of();
    }
  }

  /// Empty where it cannot be read: a process ends while we look at it.
  private static String read(Path file) {
    try (var in = Files.newInputStream(file)) {
      return new String(in.readNBytes(MOST_BYTES), StandardCharsets.UTF_8);
    } catch (IOException e) {
      return "";
    }
  }
}
