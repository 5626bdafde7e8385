package dev.foredeck.driver.host;

import dev.foredeck.core.Hashes;
import dev.foredeck.core.Id;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;

/// Where a driver of this host keeps what it makes, and how much it may make.
///
/// @param dataDir holds `sandboxes/<id>`: what survives a reboot (the disks)
/// @param runDir holds sockets: gone after a reboot. It must be short
/// @param uidSlots shared by all control planes of this host, so that no two sandboxes share users
/// @param agentBundle the folder that `sandbox-agent/agent/bundle.sh` made
/// @param maxSandboxes on this host, by this driver
/// @param minFreeBytes disk space that a launch must leave for everything else
public record HostPlaces(
    Path dataDir,
    Path runDir,
    Path uidSlots,
    Path agentBundle,
    int maxSandboxes,
    long minFreeBytes) {

  /// `sun_path` of the kernel, its closing NUL taken off.
  private static final int SOCKET_PATH_BYTES = 107;

  private static final int LONGEST_ID = 41;

  public HostPlaces {
    dataDir = dataDir.toAbsolutePath().normalize();
    runDir = runDir.toAbsolutePath().normalize();
    uidSlots = uidSlots.toAbsolutePath().normalize();
    agentBundle = agentBundle.toAbsolutePath().normalize();
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
  public static HostPlaces of(Path dataDir, Path agentBundle) {
    return new HostPlaces(
        dataDir,
        Path.of("/run/foredeck-" + hash(dataDir)),
        Path.of("/run/foredeck-uids"),
        agentBundle,
        64,
        1L << 30);
  }

  /// Eight hexadecimal digits that tell data folders apart.
  public static String hash(Path dataDir) {
    byte[] path = dataDir.toAbsolutePath().normalize().toString().getBytes(StandardCharsets.UTF_8);
    return Hashes.sha256(path).substring(0, 8);
  }

  public Path sandboxes() {
    return dataDir.resolve("sandboxes");
  }

  /// Root only: the sockets in its folders are reachable through a sandbox's mount alone.
  public Path sockets() {
    return runDir.resolve("s");
  }

  public Path socketFolder(Id sandbox) {
    return sockets().resolve(sandbox.value());
  }

  public Folder folder(Id sandbox) {
    return new Folder(sandboxes().resolve(sandbox.value()));
  }

  /// The ids among the names in a folder, which need not be there.
  public static Set<Id> named(Path folder) throws IOException {
    Set<Id> ids = new TreeSet<>();
    if (Files.isDirectory(folder)) {
      try (DirectoryStream<Path> children = Files.newDirectoryStream(folder)) {
        for (Path child : children) {
          id(child.getFileName().toString()).ifPresent(ids::add);
        }
      }
    }
    return ids;
  }

  /// The sandbox in whose folder the path is.
  Optional<Id> owner(Path path) {
    return path.startsWith(sandboxes()) && !path.equals(sandboxes())
        ? id(sandboxes().relativize(path).getName(0).toString())
        : Optional.empty();
  }

  private static Optional<Id> id(String name) {
    return Id.isValid(name) ? Optional.of(new Id(name)) : Optional.empty();
  }

  /// A folder for root alone.
  public static void makePrivate(Path folder) throws IOException {
    Files.createDirectories(folder);
    Files.setPosixFilePermissions(folder, PosixFilePermissions.fromString("rwx------"));
  }

  /// A folder that others may pass through, without seeing what is in it.
  public static void makeEnterable(Path folder) throws IOException {
    Files.createDirectories(folder);
    Files.setPosixFilePermissions(folder, PosixFilePermissions.fromString("rwx--x--x"));
  }

  /// For a driver that closes: folders of the run folder that are empty go, and it with the last.
  /// They are made anew at need. Whatever lies in one is another's to remove.
  public void removeEmptyRunFolders() {
    try (DirectoryStream<Path> children = Files.newDirectoryStream(runDir, Files::isDirectory)) {
      for (Path child : children) {
        removeIfEmpty(child);
      }
      removeIfEmpty(runDir);
    } catch (IOException _) {
      // Empty folders cost nothing, and are gone after a reboot.
    }
  }

  private static void removeIfEmpty(Path folder) throws IOException {
    try {
      Files.delete(folder);
    } catch (DirectoryNotEmptyException _) {
      // A sandbox that outlives this control plane.
    }
  }

  /// The folders that lead to the sandbox's sockets, and its own.
  public void makeSocketFolder(Id sandbox) throws IOException {
    makeEnterable(runDir);
    makePrivate(sockets());
    makeEnterable(socketFolder(sandbox));
  }
}
