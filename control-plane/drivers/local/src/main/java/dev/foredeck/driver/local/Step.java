package dev.foredeck.driver.local;

/// Every point at which a launch or a destroy can be cut off by the death of the control plane, in
/// order. What each leaves behind is named, because [LocalDriver#list] must see it and
/// [LocalDriver#destroy] must undo it.
enum Step {
  /// Leaves a claim in the folder of user ranges. Undone by [UidSlots#free].
  SLOT_CLAIMED,
  /// Leaves `sandboxes/<id>` with `launch.json`. Undone by removing the folder.
  FOLDER_MADE,
  /// Leaves the image. Undone with the folder.
  DISK_FORMATTED,
  /// Leaves a mount and a loop device. Undone by unmounting, which detaches the device.
  DISK_MOUNTED,
  /// Leaves directories in the image. Undone with the image.
  DISK_FURNISHED,
  /// Leaves the socket folder and, while the control plane lives, a listener. Undone by closing and
  /// removing.
  LISTENING,
  /// Leaves `bundle/config.json`. Undone with the folder.
  CONFIG_WRITTEN,
  /// Leaves processes, cgroups and the runtime's record. Undone by killing what is in the cgroups,
  /// then `runc delete`, then removing the cgroups.
  STARTED,
  /// Leaves `process.json`: from here on the sandbox is launched.
  RECORDED,

  /// No process is left. What is: all else. Destroy again completes.
  KILLED,
  /// The runtime has forgotten it.
  FORGOTTEN,
  /// Nobody listens any more.
  CLOSED,
  UNMOUNTED,
  DETACHED,
  CGROUPS_REMOVED,
  SOCKETS_REMOVED,
  FOLDER_REMOVED,
  /// Last: until here nobody else may get the users whose files and processes these were.
  SLOT_FREED;

  /// Is told of each step when it is done.
  @FunctionalInterface
  interface Observer {
    Observer NONE = _ -> {};

    void reached(Step step);
  }
}
