package dev.foredeck.driver.host;

/// Every point at which a launch or a destroy can be cut off by the death of the control plane, in
/// order. What each leaves behind is named, because a driver's `list` must see it and its `destroy`
/// must undo it.
public enum Step {
  /// Leaves `sandboxes/<id>` with an empty image, and a claim in the folder of user ranges. Undone
  /// by removing the one and [UidSlots#free].
  SLOT_CLAIMED,
  /// Leaves `launch.json`. Undone with the folder.
  FOLDER_MADE,
  /// Leaves a file system in the image. Undone with the folder.
  DISK_FORMATTED,
  /// Leaves a mount and a loop device. Undone by unmounting, which detaches the device.
  DISK_MOUNTED,
  /// Leaves directories on the disk. Undone with its image.
  DISK_FURNISHED,
  /// Leaves the socket folder and, while the control plane lives, a listener. Undone by closing and
  /// removing.
  LISTENING,
  /// Leaves what the runtime is to run: a configuration in the folder, or a container that was
  /// never started. Undone with the folder, or by removing the container.
  PREPARED,
  /// Leaves what runs, and what its runtime remembers of it. Undone by the next three.
  STARTED,
  /// Leaves `process.json`: from here on the sandbox is launched.
  RECORDED,

  /// No process is left. What is: all else. Destroy again completes.
  ENDED,
  /// The runtime has forgotten it; where a daemon forgets what it ends, that was one step.
  FORGOTTEN,
  /// Likewise.
  CGROUPS_REMOVED,
  /// Nobody listens any more.
  CLOSED,
  UNMOUNTED,
  DETACHED,
  SOCKETS_REMOVED,
  FOLDER_REMOVED,
  /// Last: until here nobody else may get the users whose files and processes these were.
  SLOT_FREED;

  /// Is told of each step when it is done.
  @FunctionalInterface
  public interface Observer {
    Observer NONE = _ -> {};

    /// May throw, as a control plane that dies there.
    void reached(Step step);
  }
}
