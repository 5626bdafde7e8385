package dev.foredeck.driver.local;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.Iterator;
import java.util.List;
import java.util.function.UnaryOperator;

/// Changes of a bundle's configuration, each of which breaks a promise.
final class Tampering {
  private Tampering() {}

  static UnaryOperator<ObjectNode> without(String namespace) {
    return config -> remove(config, "/linux/namespaces", "type", namespace);
  }

  /// Users that belong to the host.
  static ObjectNode withUsersOfTheHost(ObjectNode config) {
    for (String map : List.of("uidMappings", "gidMappings")) {
      ((ObjectNode) config.at("/linux/" + map + "/0")).put("hostID", 100_000);
    }
    return config;
  }

  static UnaryOperator<ObjectNode> withCapabilities(String... sets) {
    return config -> {
      for (String set : sets) {
        ((ArrayNode) config.at("/process/capabilities/" + set)).add("CAP_CHOWN");
      }
      return config;
    };
  }

  static ObjectNode withWritableRoot(ObjectNode config) {
    ((ObjectNode) config.get("root")).put("readonly", false);
    return config;
  }

  /// @param resource as `memory`
  static UnaryOperator<ObjectNode> withoutLimit(String resource) {
    return config -> {
      ((ObjectNode) config.at("/linux/resources")).remove(resource);
      return config;
    };
  }

  static ObjectNode withoutSystemCallFilter(ObjectNode config) {
    ((ObjectNode) config.get("linux")).remove("seccomp");
    return config;
  }

  /// Another option of a mount in the place of one.
  static UnaryOperator<ObjectNode> withOption(String at, String from, String to) {
    return config -> {
      ArrayNode options = (ArrayNode) mount(config, at).get("options");
      for (int i = 0; i < options.size(); i++) {
        if (options.get(i).asText().equals(from)) {
          options.set(i, to);
        }
      }
      return config;
    };
  }

  static ObjectNode mount(ObjectNode config, String at) {
    for (JsonNode mount : config.withArray("mounts")) {
      if (mount.path("destination").asText().equals(at)) {
        return (ObjectNode) mount;
      }
    }
    throw new AssertionError("nothing is mounted at " + at);
  }

  /// Takes out of a list what has that value in a field.
  static ObjectNode remove(ObjectNode config, String list, String field, String value) {
    Iterator<JsonNode> all = config.at(list).iterator();
    while (all.hasNext()) {
      if (all.next().path(field).asText().equals(value)) {
        all.remove();
      }
    }
    return config;
  }
}
