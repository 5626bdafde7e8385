package dev.foredeck.driver.host;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.HexFormat;
import java.util.Optional;
import java.util.OptionalLong;

/// What the driver remembers of a sandbox on disk, so that a control plane that starts later knows
/// it. Each file is written as a whole or not at all.
public final class Records {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final String TOKEN_HASH = "tokenSha256";

  private Records() {}

  /// A process that cannot be mistaken for another: a pid is used again, within a boot and after
  /// it.
  ///
  /// @param startTicks clock ticks from boot to its start
  /// @param bootId of the kernel
  public record Identity(long pid, long startTicks, String bootId) {
    public boolean isAlive() throws IOException {
      OptionalLong ticks = KernelTables.startTicks(pid);
      return ticks.isPresent()
          && ticks.getAsLong() == startTicks
          && KernelTables.bootId().equals(bootId);
    }
  }

  public static void writeLaunch(Path file, byte[] tokenHash) throws IOException {
    ObjectNode json = JSON.createObjectNode();
    json.put(TOKEN_HASH, HexFormat.of().formatHex(tokenHash));
    write(file, JSON.writeValueAsBytes(json));
  }

  /// The hash of the token that the sandbox was launched with.
  public static Optional<byte[]> readTokenHash(Path file) throws IOException {
    Optional<JsonNode> json = read(file);
    return json.isEmpty()
        ? Optional.empty()
        : Optional.of(HexFormat.of().parseHex(json.get().path(TOKEN_HASH).asText()));
  }

  public static void writeProcess(Path file, Identity process) throws IOException {
    ObjectNode json = JSON.createObjectNode();
    json.put("pid", process.pid());
    json.put("startTicks", process.startTicks());
    json.put("bootId", process.bootId());
    write(file, JSON.writeValueAsBytes(json));
  }

  public static Optional<Identity> readProcess(Path file) throws IOException {
    Optional<JsonNode> json = read(file);
    return json.isEmpty()
        ? Optional.empty()
        : Optional.of(
            new Identity(
                json.get().path("pid").asLong(),
                json.get().path("startTicks").asLong(),
                json.get().path("bootId").asText()));
  }

  /// Writes it readable for root alone.
  public static void write(Path file, byte[] bytes) throws IOException {
    Path aside = file.resolveSibling(file.getFileName() + ".new");
    Files.deleteIfExists(aside);
    Files.createFile(
        aside, PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------")));
    Files.write(aside, bytes);
    Files.move(aside, file, StandardCopyOption.ATOMIC_MOVE);
  }

  /// After a crash of the host a file may be empty: then what it said is not known.
  private static Optional<JsonNode> read(Path file) throws IOException {
    try {
      JsonNode json = JSON.readTree(Files.readAllBytes(file));
      return json.isObject() ? Optional.of(json) : Optional.empty();
    } catch (NoSuchFileException | JsonProcessingException _) {
      return Optional.empty();
    }
  }
}
