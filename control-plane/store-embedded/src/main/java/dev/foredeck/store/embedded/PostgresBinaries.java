package dev.foredeck.store.embedded;

import java.io.BufferedInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import org.apache.commons.compress.archivers.tar.TarArchiveEntry;
import org.apache.commons.compress.archivers.tar.TarArchiveInputStream;
import org.jspecify.annotations.Nullable;
import org.tukaani.xz.XZInputStream;

/// Unpacks the PostgreSQL that comes in a jar, once per version.
///
/// A folder of the version's name is complete or not there: it is made beside and renamed.
final class PostgresBinaries {
  /// The version in the parent POM. A test compares it with what the server says.
  static final String VERSION = "18.6";

  static final int MAJOR = 18;

  /// More than the archive of any version so far, and a bound on a broken one.
  private static final long MAX_UNPACKED_BYTES = 512L << 20;

  private PostgresBinaries() {}

  /// @return the folder that has `bin`, `lib` and `share`
  static Path unpack(Path folder, long unique) throws IOException {
    Path home = folder.resolve(VERSION);
    if (Files.isDirectory(home)) {
      return home;
    }
    String resource = "/postgres-linux-" + architecture() + ".txz";
    Path half = folder.resolve(".unpacking-" + Long.toHexString(unique));
    try (InputStream packed = PostgresBinaries.class.getResourceAsStream(resource)) {
      if (packed == null) {
        throw new IOException(
            "no embedded PostgreSQL for this machine ("
                + resource
                + " is not on the class path): give an outside one by FOREDECK_DATABASE_URL");
      }
      untar(new XZInputStream(new BufferedInputStream(packed, 1 << 16)), half);
      // The rename must not outlive the contents in a power failure.
      Commands.run(List.of("sync", "-f", half.toString()), Duration.ofMinutes(2));
      Files.move(half, home, StandardCopyOption.ATOMIC_MOVE);
    } finally {
      removeTree(half);
    }
    return home;
  }

  private static String architecture() {
    String name = System.getProperty("os.arch").toLowerCase(Locale.ROOT);
    return switch (name) {
      case "amd64", "x86_64" -> "x86_64";
      case "aarch64", "arm64" -> "arm_64";
      default -> name;
    };
  }

  private static void untar(InputStream stream, Path target) throws IOException {
    Files.createDirectories(target, PosixFilePermissions.asFileAttribute(MODE_755));
    long total = 0;
    try (TarArchiveInputStream tar = new TarArchiveInputStream(stream)) {
      for (TarArchiveEntry entry = tar.getNextEntry(); entry != null; entry = tar.getNextEntry()) {
        Path path = target.resolve(entry.getName()).normalize();
        if (!path.startsWith(target)) {
          throw new IOException("the archive of PostgreSQL names a path outside of it");
        }
        total += entry.getSize();
        if (total > MAX_UNPACKED_BYTES) {
          throw new IOException("the archive of PostgreSQL is larger than expected");
        }
        if (entry.isDirectory()) {
          Files.createDirectories(path);
          Files.setPosixFilePermissions(path, MODE_755);
        } else if (entry.isSymbolicLink()) {
          Path link = Path.of(entry.getLinkName());
          if (link.isAbsolute() || !path.resolveSibling(link).normalize().startsWith(target)) {
            throw new IOException("the archive of PostgreSQL links to a path outside of it");
          }
          Files.createSymbolicLink(path, link);
        } else if (entry.isFile()) {
          makeFolder(path);
          Files.copy(tar, path);
          Files.setPosixFilePermissions(path, (entry.getMode() & 0111) != 0 ? MODE_755 : MODE_644);
        }
      }
    }
  }

  private static void makeFolder(Path file) throws IOException {
    Path parent = file.getParent();
    if (parent != null) {
      Files.createDirectories(parent);
    }
  }

  private static final Set<PosixFilePermission> MODE_755 =
      PosixFilePermissions.fromString("rwxr-xr-x");
  private static final Set<PosixFilePermission> MODE_644 =
      PosixFilePermissions.fromString("rw-r--r--");

  /// Removes a folder with all in it; nothing when it is not there. Follows no links.
  static void removeTree(Path root) throws IOException {
    try {
      Files.walkFileTree(
          root,
          new SimpleFileVisitor<Path>() {
            @Override
            public FileVisitResult visitFile(Path file, BasicFileAttributes attributes)
                throws IOException {
              Files.delete(file);
              return FileVisitResult.CONTINUE;
            }

            @Override
            public FileVisitResult postVisitDirectory(Path folder, @Nullable IOException e)
                throws IOException {
              if (e != null) {
                throw e;
              }
              Files.delete(folder);
              return FileVisitResult.CONTINUE;
            }
          });
    } catch (NoSuchFileException _) {
      // Nothing to remove.
    }
  }
}
