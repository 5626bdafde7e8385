package dev.foredeck.driver.host;

import dev.foredeck.core.driver.DriverException;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;

/// A sandbox's disk: a sparse image with an ext4 file system on a loop device. Its size is a limit
/// that no one inside can pass, and it uses of the host's disk what was really written.
public final class Disk {
  private static final int IMAGES_AT_ONCE = 256;

  private Disk() {}

  /// Makes the image of that size, with nothing in it: from here on [#unwritten] counts it.
  public static void reserve(Folder folder, long bytes) throws IOException {
    try (RandomAccessFile image = new RandomAccessFile(folder.image().toFile(), "rw")) {
      if (image.length() != bytes) {
        image.setLength(bytes);
      }
    }
  }

  /// What the host's disk has promised to sandboxes and not given yet, in bytes: the images are
  /// sparse, and each may still grow to its size.
  ///
  /// @param sandboxes the folder that holds a [Folder] for each
  public static long unwritten(Path sandboxes, Deadline deadline)
      throws IOException, DriverException.Failed {
    List<String> images = new ArrayList<>();
    try (DirectoryStream<Path> folders = Files.newDirectoryStream(sandboxes)) {
      for (Path folder : folders) {
        Path image = new Folder(folder).image();
        if (Files.exists(image)) {
          images.add(image.toString());
        }
      }
    }
    long unwritten = 0;
    for (int from = 0; from < images.size(); from += IMAGES_AT_ONCE) {
      List<String> argv = new ArrayList<>(List.of("stat", "--format=%s %b %B"));
      argv.addAll(images.subList(from, Math.min(images.size(), from + IMAGES_AT_ONCE)));
      // Java does not tell the blocks of a file. An image that a destroy removes meanwhile has no
      // line, and what it says instead is no three numbers.
      for (String line : Command.run(deadline, argv.toArray(String[]::new)).output().split("\n")) {
        if (line.matches("\\d+ \\d+ \\d+")) {
          String[] sizes = line.split(" ");
          long written = Long.parseLong(sizes[1]) * Long.parseLong(sizes[2]);
          unwritten += Math.max(0, Long.parseLong(sizes[0]) - written);
        }
      }
    }
    return unwritten;
  }

  /// Makes a file system in the image; what was there is lost.
  public static void format(Folder folder, long bytes, Deadline deadline)
      throws IOException, DriverException.Failed {
    reserve(folder, bytes);
    // No journal: after a crash of the host the sandbox's processes are gone, and its disk with
    // them. No reserved blocks: they are for the host's root, who never writes here.
    Command.require(
        deadline,
        "make the sandbox's disk",
        "mkfs.ext4",
        "-q",
        "-F",
        "-m",
        "0",
        "-O",
        "^has_journal",
        "-E",
        "lazy_itable_init=1,nodiscard",
        folder.image().toString());
  }

  /// Mounts the image. The loop device goes away by itself when the file system is unmounted.
  public static void mount(Folder folder, Deadline deadline)
      throws IOException, DriverException.Failed {
    Files.createDirectories(folder.disk());
    Command.require(
        deadline,
        "mount the sandbox's disk",
        "mount",
        "-t",
        "ext4",
        "-o",
        "loop,nosuid,nodev,noatime",
        folder.image().toString(),
        folder.disk().toString());
  }

  /// Makes what the fresh file system holds.
  ///
  /// @param uid the host's number of the sandbox's user (and group)
  public static void furnish(Folder folder, int uid) throws IOException {
    Files.createDirectory(folder.workspace());
    own(folder.workspace(), uid);
    Files.createFile(
        folder.agentLog(),
        PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------")));
  }

  public static void own(Path file, int uid) throws IOException {
    Files.setAttribute(file, "unix:uid", uid);
    Files.setAttribute(file, "unix:gid", uid);
  }

  public static boolean isMounted(Folder folder) throws IOException {
    for (KernelTables.Mount mount : KernelTables.mounts()) {
      if (mount.point().startsWith(folder.path())) {
        return true;
      }
    }
    return false;
  }

  public static boolean isAttached(Folder folder) throws IOException {
    for (KernelTables.Loop loop : KernelTables.loops()) {
      if (loop.backingFile().startsWith(folder.path())) {
        return true;
      }
    }
    return false;
  }

  /// Unmounts all there is of it, as often as it is mounted.
  public static void unmount(Folder folder, Deadline deadline)
      throws IOException, DriverException.Failed {
    Deadline polite = deadline.atMost(java.time.Duration.ofSeconds(2));
    while (true) {
      boolean mounted = false;
      for (KernelTables.Mount mount : KernelTables.mounts()) {
        if (mount.point().startsWith(folder.path())) {
          mounted = true;
          // Something of the host may look at it (a backup, a file indexer): then it is only taken
          // out of the tree, and detached when that one lets go.
          String[] argv =
              polite.passed()
                  ? new String[] {"umount", "--lazy", mount.point().toString()}
                  : new String[] {"umount", mount.point().toString()};
          Command.run(deadline, argv);
        }
      }
      if (!mounted) {
        return;
      }
      deadline.pause("unmount the disk in " + folder.path());
    }
  }

  /// Waits until no loop device holds the image, and detaches one that nobody has mounted.
  public static void detach(Folder folder, Deadline deadline)
      throws IOException, DriverException.Failed {
    while (true) {
      boolean attached = false;
      for (KernelTables.Loop loop : KernelTables.loops()) {
        if (loop.backingFile().startsWith(folder.path())) {
          attached = true;
          Command.run(deadline, "losetup", "--detach", loop.device());
        }
      }
      if (!attached) {
        return;
      }
      deadline.pause("detach the loop device of " + folder.image());
    }
  }
}
