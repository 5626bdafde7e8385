package dev.foredeck.driver.host;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Map;

/// Files of `/etc` that are every sandbox's own, and neither the host's nor its image's.
public final class EtcFiles {
  private EtcFiles() {}

  /// Contents by name.
  ///
  /// @param uid of the sandbox's user and group, as they are numbered inside
  public static Map<String, String> of(int uid) {
    return Map.of(
        "passwd",
        """
        root:x:0:0:root:/root:/usr/sbin/nologin
        sandbox:x:%d:%d:sandbox:/workspace:/bin/sh
        nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
        """
            .formatted(uid, uid),
        "group",
        """
        root:x:0:
        tty:x:5:
        sandbox:x:%d:
        nogroup:x:65534:
        """
            .formatted(uid),
        "hosts",
        """
        127.0.0.1 localhost sandbox
        ::1 localhost ip6-localhost ip6-loopback
        """,
        "hostname",
        "sandbox\n",
        // Names are resolved at the egress gateway: in here there is nobody to ask.
        "resolv.conf",
        "");
  }

  /// Writes them into a folder, readable for everybody.
  public static void write(Path folder, Map<String, String> files) throws IOException {
    for (Map.Entry<String, String> file : files.entrySet()) {
      Path target = folder.resolve(file.getKey());
      Files.writeString(target, file.getValue());
      // Said outright: the control plane's umask must not decide what a sandbox can read.
      Files.setPosixFilePermissions(target, PosixFilePermissions.fromString("rw-r--r--"));
    }
  }
}
