package dev.foredeck.driver.docker;

/// Every point at which a launch or a destroy can be cut off by the death of the control plane, in
/// order. What each leaves behind is named, because [DockerDriver#list] must see it and
/// [DockerDriver#destroy] must undo it.
enum Step {
  /// Leaves a claim in the folder of user ranges. Undone by freeing it.
  SLOT_CLAIMED,
  /// Leaves `sandboxes/<id>` with `launch.json`. Undone by removing the folder.
  FOLDER_MADE,
  /// Leaves the image of the disk. Undone with the folder.
  DISK_FORMATTED,
  /// Leaves a mount and a loop device. Undone by unmounting, which detaches the device.
  DISK_MOUNTED,
  /// Leaves directories on the disk. Undone with its image.
  DISK_FURNISHED,
  /// Leaves the socket folder and, while the control plane lives, a listener. Undone by closing and
  /// removing.
  LISTENING,
  /// Leaves a container that was never started. Undone by removing it.
  CREATED,
  /// Leaves a container that runs. Undone by removing it by force, which ends its processes.
  STARTED,
  /// Leaves `process.json`: from here on the sandbox is launched.
  RECORDED,

  /// The daemon has forgotten it, and no process is left. What is: all else. Destroy again
  /// completes.
  CONTAINER_REMOVED,
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
  interface Observer {
    Observer NONE = _ -> {};

    void reached(Step step);
  }
}
