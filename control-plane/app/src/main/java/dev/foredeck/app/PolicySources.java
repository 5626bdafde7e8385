package dev.foredeck.app;

import dev.foredeck.app.Configuration.ConfigurationException;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;

/// Where policies come from: the packs that ship, and the operator's folder, whose files win by
/// name.
final class PolicySources {
  private static final String PACKS = "/dev/foredeck/policies/";

  private PolicySources() {}

  /// @throws ConfigurationException naming all of the operator's that cannot be read
  static Map<String, String> read(Path folder) {
    Map<String, String> sources = new TreeMap<>();
    for (String name : resource("index").lines().map(String::strip).toList()) {
      if (!name.isEmpty() && !name.startsWith("#")) {
        sources.put(name, resource(name + ".yaml"));
      }
    }
    if (Files.isDirectory(folder)) {
      try (Stream<Path> files = Files.list(folder)) {
        List<Path> policies =
            files
                .filter(file -> file.toString().endsWith(".yaml"))
                .filter(file -> !file.toString().endsWith(".test.yaml"))
                .sorted()
                .toList();
        List<String> faults = new ArrayList<>();
        for (Path file : policies) {
          String fileName = file.getFileName().toString();
          try {
            sources.put(
                fileName.substring(0, fileName.length() - ".yaml".length()),
                Files.readString(file));
          } catch (CharacterCodingException _) {
            faults.add("the policy " + file + " is not valid UTF-8");
          } catch (IOException e) {
            faults.add("the policy " + file + " cannot be read: " + e.getMessage());
          }
        }
        if (!faults.isEmpty()) {
          throw new ConfigurationException(String.join("\n", faults));
        }
      } catch (IOException | UncheckedIOException e) {
        throw new ConfigurationException(
            "the policies in " + folder + " cannot be read: " + e.getMessage());
      }
    }
    return sources;
  }

  private static String resource(String name) {
    try (InputStream in = PolicySources.class.getResourceAsStream(PACKS + name)) {
      if (in == null) {
        throw new IllegalStateException("the policy library lacks " + name);
      }
      return new String(in.readAllBytes(), StandardCharsets.UTF_8);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
