package dev.foredeck.driver.host;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.DriverException;
import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;

/// A disjoint range of users for each sandbox of this host, whichever control plane made it.
///
/// A claim is a symbolic link `<folder>/<slot>` whose target names the owner: making one is atomic
/// and carries the owner with it, so that no crash leaves a claim that nobody can attribute.
public final class UidSlots {
  /// Users per sandbox: what images of Linux distributions expect.
  public static final int RANGE = 65_536;

  /// From here to [#COUNT] ranges on, the kernel's users belong to nobody by the common conventions
  /// (people, `subuid`, systemd's containers and dynamic users lie below).
  public static final int FIRST = 0x7000_0000;

  public static final int COUNT = 4_000;

  private final Path folder;
  private final Path owner;

  /// @param owner tells this driver's claims from those of others: its run folder
  public UidSlots(Path folder, Path owner) {
    this.folder = folder;
    this.owner = owner;
  }

  public static int firstUid(int slot) {
    return FIRST + slot * RANGE;
  }

  /// The sandbox's slot, claimed now unless it was before.
  public int claim(Id sandbox) throws IOException, DriverException.Full {
    OptionalInt known = find(sandbox);
    if (known.isPresent()) {
      return known.getAsInt();
    }
    Files.createDirectories(folder);
    Path target = owner.resolve(sandbox.value());
    // Start at a place of its own: two launches at once then rarely meet.
    int start = Math.floorMod(sandbox.hashCode(), COUNT);
    for (int i = 0; i < COUNT; i++) {
      int slot = (start + i) % COUNT;
      try {
        Files.createSymbolicLink(folder.resolve(Integer.toString(slot)), target);
        return slot;
      } catch (FileAlreadyExistsException _) {
        // Someone else's: try the next.
      }
    }
    throw new DriverException.Full("all " + COUNT + " user ranges of this host are taken");
  }

  /// Gives the slot back; nothing happens where there is none.
  public void free(Id sandbox) throws IOException {
    OptionalInt slot = find(sandbox);
    if (slot.isPresent()) {
      Files.deleteIfExists(folder.resolve(Integer.toString(slot.getAsInt())));
    }
  }

  public OptionalInt find(Id sandbox) throws IOException {
    if (!Files.isDirectory(folder)) {
      return OptionalInt.empty();
    }
    try (DirectoryStream<Path> links = Files.newDirectoryStream(folder)) {
      for (Path link : links) {
        if (ownerOf(link).filter(sandbox::equals).isPresent()) {
          return OptionalInt.of(Integer.parseInt(link.getFileName().toString()));
        }
      }
    }
    return OptionalInt.empty();
  }

  /// The sandboxes of this driver that hold a slot.
  public Set<Id> owners() throws IOException {
    Set<Id> owners = new HashSet<>();
    if (Files.isDirectory(folder)) {
      try (DirectoryStream<Path> links = Files.newDirectoryStream(folder)) {
        for (Path link : links) {
          ownerOf(link).ifPresent(owners::add);
        }
      }
    }
    return owners;
  }

  private Optional<Id> ownerOf(Path link) throws IOException {
    if (!link.getFileName().toString().matches("[0-9]{1,4}") || !Files.isSymbolicLink(link)) {
      return Optional.empty();
    }
    try {
      Path target = Files.readSymbolicLink(link);
      String name = target.getFileName().toString();
      return owner.equals(target.getParent()) && Id.isValid(name)
          ? Optional.of(new Id(name))
          : Optional.empty();
    } catch (NoSuchFileException _) {
      return Optional.empty();
    }
  }
}
