package dev.foredeck.app;

import dev.foredeck.app.Configuration.ConfigurationException;
import dev.foredeck.core.DeploymentTls;
import dev.foredeck.core.Id;
import dev.foredeck.core.Ids;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.FileAttribute;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.SecureRandom;
import java.util.HexFormat;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// The folder that Foredeck keeps its things in, held by one control plane at a time: the kernel drops the lock when the process
/// dies, however it dies.
///
///     DIR/lock             held while we run, 0600
///     DIR/admin.key        the operator's key, 0600
///     DIR/deployment.key   from which agents' tokens are derived, 0600
///     DIR/deployment.pem   the certificate that agents reached over a network look for, and its key, 0600
///     DIR/gateway.key      what egress gateways of their own process share with us, 0600
///     DIR/replica.id       this replica's name, 0600
///     DIR/policies/        the operator's own policies, *.yaml
///     DIR/postgres/        the embedded database
final class DataDirectory implements AutoCloseable {
  private static final int KEY_BYTES = 32;
  private static final FileAttribute<Set<PosixFilePermission>> OWNER_ONLY =
      PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------"));
  private static final String CERTIFICATE = "deployment.pem";

  private final Path path;
  private final FileChannel channel;

  private DataDirectory(Path path, FileChannel channel) {
    this.path = path;
    this.channel = channel;
  }

  /// @throws ConfigurationException when it cannot be used, or another control plane holds it
  static DataDirectory open(Path path) {
    if (Files.exists(path) && !Files.isDirectory(path)) {
      throw new ConfigurationException("the data folder " + path + " is a file, not a folder");
    }
    try {
      Files.createDirectories(path);
      FileChannel channel =
          FileChannel.open(
              path.resolve("lock"),
              Set.of(StandardOpenOption.CREATE, StandardOpenOption.WRITE),
              OWNER_ONLY);
      // One of before, when it was open for all to read.
      Files.setPosixFilePermissions(path.resolve("lock"), OWNER_ONLY.value());
      @Nullable FileLock lock;
      try {
        lock = channel.tryLock();
      } catch (OverlappingFileLockException e) {
        lock = null;
      }
      if (lock == null) {
        channel.close();
        throw new ConfigurationException(
            "another control plane runs on " + path + ": stop it, or name another folder (--data)");
      }
      return new DataDirectory(path, channel);
    } catch (IOException e) {
      throw new ConfigurationException("the data folder " + path + " cannot be used: " + e);
    }
  }

  Path path() {
    return path;
  }

  Path resolve(String name) {
    return path.resolve(name);
  }

  /// Random bytes that live as long as the folder.
  byte[] deploymentKey(SecureRandom random) {
    Path file = path.resolve("deployment.key");
    try {
      if (!Files.exists(file)) {
        byte[] key = new byte[KEY_BYTES];
        random.nextBytes(key);
        writeSecret("deployment.key", HexFormat.of().formatHex(key));
      }
      byte[] key = HexFormat.of().parseHex(Files.readString(file).strip());
      if (key.length != KEY_BYTES) {
        throw notOurs(file);
      }
      return key;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (IllegalArgumentException e) {
      throw notOurs(file);
    }
  }

  /// The deployment's certificate, which lives as long as the folder: running sandboxes look for
  /// it.
  DeploymentTls deploymentTls(SecureRandom random) {
    Path file = path.resolve(CERTIFICATE);
    try {
      if (!Files.exists(file)) {
        writeSecret(CERTIFICATE, DeploymentTls.generate(random).toPem().strip());
      }
      return DeploymentTls.parse(Files.readString(file));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (IllegalArgumentException e) {
      throw notOurs(file);
    }
  }

  /// The name of this replica, which lives as long as the folder: whose sandboxes are whose.
  String replica(Ids ids) {
    Path file = path.resolve("replica.id");
    try {
      if (!Files.exists(file)) {
        writeSecret("replica.id", ids.tenant().value());
      }
      String replica = Files.readString(file).strip();
      if (!Id.isValid(replica)) {
        // Under another name nobody would look after the sandboxes that live.
        throw notOurs(file);
      }
      return replica;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static ConfigurationException notOurs(Path file) {
    return new ConfigurationException(file + " is not what Foredeck wrote: restore or remove it");
  }

  /// Writes a file that only its owner reads; it is there as a whole or not at all, also after the
  /// host has lost its power.
  void writeSecret(String name, String content) throws IOException {
    Path temporary = path.resolve(name + ".new");
    Files.deleteIfExists(temporary);
    Files.createFile(temporary, OWNER_ONLY);
    try (FileChannel file = FileChannel.open(temporary, StandardOpenOption.WRITE)) {
      ByteBuffer bytes = StandardCharsets.UTF_8.encode(content + "\n");
      while (bytes.hasRemaining()) {
        file.write(bytes);
      }
      file.force(true);
    }
    Files.move(temporary, path.resolve(name), StandardCopyOption.ATOMIC_MOVE);
  }

  @Override
  public void close() {
    try {
      channel.close();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
