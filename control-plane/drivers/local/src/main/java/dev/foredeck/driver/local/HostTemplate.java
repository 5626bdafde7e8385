package dev.foredeck.driver.local;

import dev.foredeck.core.Hashes;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.host.EtcFiles;
import dev.foredeck.driver.host.Trees;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFileAttributes;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/// The template `host`: the programs and libraries of this host, read-only, in a root file system
/// of our own. Nothing of the host is in it by default: system folders are bound, a list of files
/// of `/etc` is copied (only what everybody may read), and the rest is written here.
final class HostTemplate {
  static final String NAME = "host";

  /// Another one for each change of how skeletons are made, so that old ones are not taken for new.
  private static final String LAYOUT = "3";

  /// Folders of the host that hold programs and libraries. Those that are links into `/usr` become
  /// the same links.
  private static final List<String> SYSTEM =
      List.of("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32");

  /// Where the sandbox's own mounts go, and folders that programs expect.
  private static final List<String> FOLDERS =
      List.of(
          "proc",
          "dev",
          "run",
          "run/foredeck",
          "tmp",
          "workspace",
          "etc",
          "root",
          "home",
          "srv",
          "mnt",
          "media",
          "opt",
          "opt/foredeck",
          "opt/foredeck/agent",
          "var",
          "var/tmp",
          "var/lib",
          "var/cache",
          "var/log");

  /// What programs need of `/etc` and where no distribution keeps secrets. Not in it, because
  /// people put credentials there: gitconfig, npmrc, pip.conf, wgetrc, maven, environment,
  /// profile.d.
  private static final List<String> CONFIGURATION =
      List.of(
          "alternatives",
          "bash.bashrc",
          "ca-certificates.conf",
          "crypto-policies",
          "debian_version",
          "default/locale",
          "dotnet",
          "ethertypes",
          "fonts",
          "gai.conf",
          "host.conf",
          "inputrc",
          "java-11-openjdk",
          "java-17-openjdk",
          "java-21-openjdk",
          "java-25-openjdk",
          "ld.so.cache",
          "ld.so.conf",
          "ld.so.conf.d",
          "locale.alias",
          "locale.conf",
          "localtime",
          "lsb-release",
          "magic",
          "magic.mime",
          "mime.types",
          "networks",
          "os-release",
          "perl",
          "pki/ca-trust/extracted",
          "pki/tls/cert.pem",
          "pki/tls/certs",
          "protocols",
          "python3",
          "python3.11",
          "python3.12",
          "python3.13",
          "python3.14",
          "rpc",
          "services",
          "ssl/certs",
          "ssl/openssl.cnf",
          "terminfo",
          "timezone");

  private static final Map<String, String> WRITTEN =
      Map.ofEntries(
          Map.entry(
              "nsswitch.conf",
              """
              passwd: files
              group: files
              shadow: files
              hosts: files
              networks: files
              protocols: files
              services: files
              """),
          // The distribution's would overwrite the PATH that a call asked for.
          Map.entry(
              "profile",
              """
              PATH=${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}
              export PATH
              """),
          Map.entry("shells", "/bin/sh\n/bin/bash\n"));

  /// Bounds on what is copied: a folder of `/etc` that passes them is not what it is on a
  /// distribution.
  private static final int MAX_FILES = 20_000;

  private static final long MAX_FILE_BYTES = 8L << 20;

  /// @param root the folder that becomes `/`, with every mount point in it
  /// @param binds paths of the host to bind read-only at the same path
  record Skeleton(Path root, List<String> binds) {
    Skeleton {
      binds = List.copyOf(binds);
    }
  }

  private final Path host;
  private final Path roots;

  /// @param host `/`, or something like it in tests
  /// @param roots where skeletons are kept; every user must be able to enter it: the runtime looks
  ///   it up as the sandbox's users
  HostTemplate(Path host, Path roots) {
    this.host = host;
    this.roots = roots;
  }

  /// The skeleton for the host as it is now, made unless it is there.
  synchronized Skeleton ensure() throws IOException, DriverException.Failed {
    List<String> binds = new ArrayList<>();
    for (String name : SYSTEM) {
      Path path = host.resolve(name);
      if (Files.isDirectory(path, LinkOption.NOFOLLOW_LINKS)) {
        binds.add("/" + name);
      }
    }
    Path root = roots.resolve(NAME + "-" + fingerprint());
    if (!Files.isDirectory(root)) {
      make(root);
    }
    return new Skeleton(root, binds);
  }

  private static Map<String, String> written() {
    Map<String, String> files = new HashMap<>(WRITTEN);
    files.putAll(EtcFiles.of(OciConfig.USER));
    return files;
  }

  /// Changes when something changes that a skeleton was copied from.
  private String fingerprint() throws IOException {
    StringBuilder seen = new StringBuilder(LAYOUT).append(FOLDERS);
    for (String name : SYSTEM) {
      Path path = host.resolve(name);
      seen.append(name).append(Files.isSymbolicLink(path) ? linkTarget(path) : "").append('\n');
    }
    written().entrySet().stream()
        .sorted(Map.Entry.comparingByKey())
        .forEach(e -> seen.append(e.getKey()).append(e.getValue()));
    for (String name : CONFIGURATION) {
      walk(
          host.resolve("etc").resolve(name),
          (file, attributes) -> {
            seen.append(file)
                .append(attributes.size())
                .append(attributes.lastModifiedTime().toMillis())
                .append('\n');
          });
    }
    byte[] digest = Hashes.sha256Bytes(seen.toString().getBytes(StandardCharsets.UTF_8));
    return HexFormat.of().formatHex(digest, 0, 8);
  }

  /// Builds it aside and renames it: a skeleton that has its name is whole.
  private void make(Path root) throws IOException, DriverException.Failed {
    Files.createDirectories(roots);
    Path building = roots.resolve(".building");
    Trees.delete(building);
    directory(building);
    for (String folder : FOLDERS) {
      directory(building.resolve(folder));
    }
    for (String scratch : List.of("tmp", "var/tmp")) {
      // The runtime gives a tmpfs the mode of the folder that it covers, whatever it was told.
      Files.setAttribute(building.resolve(scratch), "unix:mode", 01777);
    }
    for (String name : SYSTEM) {
      Path path = host.resolve(name);
      if (Files.isSymbolicLink(path)) {
        Files.createSymbolicLink(building.resolve(name), Files.readSymbolicLink(path));
      } else if (Files.isDirectory(path)) {
        directory(building.resolve(name));
      }
    }
    for (String name : CONFIGURATION) {
      copy(name, building.resolve("etc"));
    }
    EtcFiles.write(building.resolve("etc"), written());
    Files.createSymbolicLink(building.resolve("etc/mtab"), Path.of("../proc/self/mounts"));
    Files.createSymbolicLink(building.resolve("var/run"), Path.of("../run"));
    Files.move(building, root, StandardCopyOption.ATOMIC_MOVE);
  }

  private void copy(String name, Path etc) throws IOException {
    Path from = host.resolve("etc");
    walk(
        from.resolve(name),
        (file, attributes) -> {
          Path target = etc.resolve(from.relativize(file).toString());
          if (Files.exists(target, LinkOption.NOFOLLOW_LINKS)) {
            return;
          }
          parents(etc, from.relativize(file));
          if (attributes.isSymbolicLink()) {
            Files.createSymbolicLink(target, Files.readSymbolicLink(file));
          } else if (attributes.isDirectory()) {
            directory(target);
          } else if (attributes.isRegularFile()
              && attributes.permissions().contains(PosixFilePermission.OTHERS_READ)
              && attributes.size() <= MAX_FILE_BYTES) {
            Files.copy(file, target);
            mode(
                target,
                attributes.permissions().contains(PosixFilePermission.OTHERS_EXECUTE)
                    ? "rwxr-xr-x"
                    : "rw-r--r--");
          }
        });
  }

  @FunctionalInterface
  private interface Visitor {
    void visit(Path file, PosixFileAttributes attributes) throws IOException;
  }

  /// Visits a file or a tree in the order of names, without following links.
  private static void walk(Path start, Visitor visitor) throws IOException {
    if (!Files.exists(start, LinkOption.NOFOLLOW_LINKS)) {
      return;
    }
    try (Stream<Path> files = Files.walk(start)) {
      for (Path file : files.limit(MAX_FILES).sorted().toList()) {
        try {
          visitor.visit(
              file,
              Files.readAttributes(file, PosixFileAttributes.class, LinkOption.NOFOLLOW_LINKS));
        } catch (NoSuchFileException _) {
          // A package manager is at work: what is gone is not copied.
        }
      }
    } catch (UncheckedIOException e) {
      throw e.getCause() instanceof FileSystemException cause ? cause : new IOException(e);
    }
  }

  private static String linkTarget(Path link) {
    try {
      return Files.readSymbolicLink(link).toString();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /// Makes the folders above `file`, which is relative to `etc`.
  private static void parents(Path etc, Path file) throws IOException {
    for (int names = 1; names < file.getNameCount(); names++) {
      Path folder = etc.resolve(file.subpath(0, names).toString());
      if (!Files.exists(folder)) {
        directory(folder);
      }
    }
  }

  private static void directory(Path folder) throws IOException {
    Files.createDirectory(folder);
    mode(folder, "rwxr-xr-x");
  }

  private static void mode(Path file, String mode) throws IOException {
    // Said outright: the control plane's umask must not decide what a sandbox can read.
    Files.setPosixFilePermissions(file, PosixFilePermissions.fromString(mode));
  }
}
