package dev.foredeck.cli;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;

/// Where a policy's name leads: folders first, then the packs that come with Foredeck.
///
/// @param folders in the order in which they are searched
record PolicySources(List<Path> folders) {
  static final int MAX_BYTES = 1024 * 1024;

  PolicySources {
    folders = List.copyOf(folders);
  }

  /// A policy's source and where it is.
  record Source(String file, String text) {}

  Optional<Source> find(String name) {
    if (!name.matches("[a-z0-9][a-z0-9._-]{0,63}")) {
      return Optional.empty();
    }
    for (Path folder : folders) {
      Path file = folder.resolve(name + ".yaml");
      if (Files.isRegularFile(file)) {
        return Optional.of(new Source(file.toString(), read(file)));
      }
    }
    String resource = "/dev/foredeck/policies/" + name + ".yaml";
    try (InputStream in = PolicySources.class.getResourceAsStream(resource)) {
      if (in == null) {
        return Optional.empty();
      }
      return Optional.of(new Source(name, new String(in.readAllBytes(), StandardCharsets.UTF_8)));
    } catch (IOException e) {
      throw new CommandException(ExitCode.CANNOT, "policy " + name + " cannot be read", e);
    }
  }

  /// @throws CommandException saying why it cannot be read
  static String read(Path file) {
    try (InputStream in = Files.newInputStream(file)) {
      byte[] bytes = in.readNBytes(MAX_BYTES + 1);
      if (bytes.length > MAX_BYTES) {
        throw new CommandException(
            ExitCode.CANNOT, file + " has more than " + Narrator.size(MAX_BYTES));
      }
      return new String(bytes, StandardCharsets.UTF_8);
    } catch (NoSuchFileException e) {
      throw new CommandException(ExitCode.CANNOT, "there is no file " + file, e);
    } catch (IOException e) {
      throw new CommandException(ExitCode.CANNOT, file + " cannot be read: " + e.getMessage(), e);
    }
  }
}
