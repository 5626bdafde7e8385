package dev.foredeck.driver.host;

import dev.foredeck.core.Hashes;
import dev.foredeck.core.Id;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.core.driver.LaunchSpec;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.OptionalInt;
import java.util.Set;
import java.util.concurrent.locks.ReentrantLock;

/// What every sandbox of this host has, whatever runs it: users of its own, a folder, a disk, and a
/// place where its agent dials. Whoever calls holds the sandbox's lock. Invariant: whatever is made
/// is found by [#ids] under the sandbox's id and undone by [#clear], at every [Step].
public final class Berths {
  private final HostPlaces places;
  private final AgentSockets sockets;
  private final UidSlots slots;

  /// Held while room is looked for and taken; within a sandbox's lock, never around one.
  private final ReentrantLock room = new ReentrantLock();

  public Berths(HostPlaces places, AgentSockets sockets) {
    this.places = places;
    this.sockets = sockets;
    this.slots = new UidSlots(places.uidSlots(), places.runDir());
  }

  /// Takes room for the sandbox and users for it.
  ///
  /// @return the number of its user range, as [UidSlots#firstUid] takes it
  public int take(LaunchSpec spec, Step.Observer observer, Deadline deadline)
      throws IOException, DriverException {
    HostPlaces.makePrivate(places.sandboxes());
    // One launch at a time, so that none passes on space that another has been given.
    SandboxLocks.locked(
        room,
        deadline,
        "find room for " + spec.sandbox(),
        () -> {
          if (!spec.sandbox().equals(Canary.ID)) {
            // A full host must be able to prove itself after a restart.
            checkCapacity(spec, deadline);
          }
          HostPlaces.makePrivate(places.folder(spec.sandbox()).path());
          Disk.reserve(places.folder(spec.sandbox()), spec.resources().diskBytes());
        });
    int slot = slots.claim(spec.sandbox());
    observer.reached(Step.SLOT_CLAIMED);
    return slot;
  }

  private void checkCapacity(LaunchSpec spec, Deadline deadline)
      throws IOException, DriverException {
    int count = 0;
    try (DirectoryStream<Path> folders = Files.newDirectoryStream(places.sandboxes())) {
      for (Path _ : folders) {
        count++;
      }
    }
    if (count >= places.maxSandboxes()) {
      throw new DriverException.Full(
          "this host has " + count + " sandboxes, and may have " + places.maxSandboxes());
    }
    long free = Files.getFileStore(places.sandboxes()).getUsableSpace();
    long promised = Disk.unwritten(places.sandboxes(), deadline);
    if (free - promised - spec.resources().diskBytes() < places.minFreeBytes()) {
      throw new DriverException.Full(
          "the disk of "
              + places.dataDir()
              + " has "
              + free
              + " bytes free, of which "
              + promised
              + " are promised to sandboxes: another with "
              + spec.resources().diskBytes()
              + " would leave less than "
              + places.minFreeBytes());
    }
  }

  /// Makes all the rest of what was taken.
  ///
  /// @param uid the host's number of the sandbox's user and group
  public void furnish(LaunchSpec spec, int uid, Step.Observer observer, Deadline deadline)
      throws IOException, DriverException {
    Folder folder = places.folder(spec.sandbox());
    HostPlaces.makePrivate(folder.bundle());
    Records.writeLaunch(
        folder.launch(), Hashes.sha256Bytes(spec.token().getBytes(StandardCharsets.UTF_8)));
    observer.reached(Step.FOLDER_MADE);
    Disk.format(folder, spec.resources().diskBytes(), deadline);
    observer.reached(Step.DISK_FORMATTED);
    Disk.mount(folder, deadline);
    observer.reached(Step.DISK_MOUNTED);
    Disk.furnish(folder, uid);
    observer.reached(Step.DISK_FURNISHED);
    places.makeSocketFolder(spec.sandbox());
    sockets.listen(spec.sandbox());
    observer.reached(Step.LISTENING);
  }

  /// Undoes all of it, whichever of it was done. No process of the sandbox is left.
  public void clear(Id sandbox, Step.Observer observer, Deadline deadline)
      throws IOException, DriverException {
    Folder folder = places.folder(sandbox);
    sockets.close(sandbox);
    observer.reached(Step.CLOSED);
    Disk.unmount(folder, deadline);
    observer.reached(Step.UNMOUNTED);
    Disk.detach(folder, deadline);
    observer.reached(Step.DETACHED);
    Trees.delete(places.socketFolder(sandbox));
    observer.reached(Step.SOCKETS_REMOVED);
    Trees.delete(folder.path());
    observer.reached(Step.FOLDER_REMOVED);
    slots.free(sandbox);
    observer.reached(Step.SLOT_FREED);
  }

  /// The number of the sandbox's user range, where it has one.
  public OptionalInt slot(Id sandbox) throws IOException {
    return slots.find(sandbox);
  }

  /// Whether anything of the sandbox is here.
  public boolean exists(Id sandbox) throws IOException {
    return Files.exists(places.folder(sandbox).path())
        || Files.exists(places.socketFolder(sandbox))
        || Disk.isMounted(places.folder(sandbox))
        || Disk.isAttached(places.folder(sandbox))
        || slots.find(sandbox).isPresent();
  }

  /// The sandboxes of which anything is here.
  public Set<Id> ids() throws IOException {
    Set<Id> ids = HostPlaces.named(places.sandboxes());
    ids.addAll(HostPlaces.named(places.sockets()));
    ids.addAll(slots.owners());
    for (KernelTables.Mount mount : KernelTables.mounts()) {
      places.owner(mount.point()).ifPresent(ids::add);
    }
    for (KernelTables.Loop loop : KernelTables.loops()) {
      places.owner(loop.backingFile()).ifPresent(ids::add);
    }
    return ids;
  }
}
