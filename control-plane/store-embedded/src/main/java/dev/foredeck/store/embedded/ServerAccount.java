package dev.foredeck.store.embedded;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;

/// Who the server runs as. PostgreSQL refuses to be root, so where we are root it gets a user id of
/// its own that nothing else on the host has, without a name, a capability or a way back.
///
/// Only `initdb` insists on a user with a name; it runs as `nobody`, and its folder is handed over
/// before a server ever starts in it.
sealed interface ServerAccount {
  /// In the part of the id range that neither Debian nor systemd gives to anybody.
  int SERVER_UID = 60_877;

  int NOBODY_UID = 65_534;

  /// How a command line becomes one of the server.
  List<String> asServer(List<String> argv);

  /// The same for `initdb`.
  List<String> asInitializer(List<String> argv);

  void giveToInitializer(Path root) throws IOException;

  void giveToServer(Path root) throws IOException;

  /// Checks that the server can reach its folder.
  void checkReaches(Path folder) throws IOException;

  static ServerAccount ofThisProcess() throws IOException {
    Object uid = Files.getAttribute(Path.of("/proc/self"), "unix:uid");
    if (!uid.equals(0)) {
      return new Same();
    }
    if (Stream.of("/usr/bin/setpriv", "/bin/setpriv").noneMatch(p -> Files.exists(Path.of(p)))) {
      throw new IOException(
          "PostgreSQL refuses to run as root, and setpriv (package util-linux) is not installed:"
              + " install it, or start Foredeck as an unprivileged user");
    }
    return new Dropped();
  }

  /// We are unprivileged ourselves.
  record Same() implements ServerAccount {
    @Override
    public List<String> asServer(List<String> argv) {
      return argv;
    }

    @Override
    public List<String> asInitializer(List<String> argv) {
      return argv;
    }

    @Override
    public void giveToInitializer(Path root) {}

    @Override
    public void giveToServer(Path root) {}

    @Override
    public void checkReaches(Path folder) {}
  }

  /// We are root.
  record Dropped() implements ServerAccount {
    @Override
    public List<String> asServer(List<String> argv) {
      return dropped(SERVER_UID, argv);
    }

    @Override
    public List<String> asInitializer(List<String> argv) {
      return dropped(NOBODY_UID, argv);
    }

    private static List<String> dropped(int uid, List<String> argv) {
      List<String> all =
          new ArrayList<>(
              List.of(
                  "setpriv",
                  "--reuid=" + uid,
                  "--regid=" + uid,
                  "--clear-groups",
                  "--inh-caps=-all",
                  "--no-new-privs",
                  "--"));
      all.addAll(argv);
      return all;
    }

    @Override
    public void giveToInitializer(Path root) throws IOException {
      give(root, NOBODY_UID);
    }

    @Override
    public void giveToServer(Path root) throws IOException {
      give(root, SERVER_UID);
    }

    private static void give(Path root, int uid) throws IOException {
      Commands.run(
          List.of("chown", "-R", "--no-dereference", uid + ":" + uid, root.toString()),
          Duration.ofMinutes(1));
    }

    @Override
    public void checkReaches(Path folder) throws IOException {
      for (Path at = folder; at != null; at = at.getParent()) {
        int mode = (Integer) Files.getAttribute(at, "unix:mode");
        if ((mode & 1) == 0) {
          throw new IOException(
              "PostgreSQL runs as the unprivileged user id "
                  + SERVER_UID
                  + " and cannot pass through "
                  + at
                  + ": choose another data folder (as /var/lib/foredeck), or allow it by: chmod"
                  + " o+x "
                  + at);
        }
      }
    }
  }
}
