package dev.foredeck.driver.kubernetes;

import dev.foredeck.driver.kubernetes.KubernetesConfig.StrongRuntime;
import io.fabric8.kubernetes.api.model.Toleration;
import io.fabric8.kubernetes.api.model.TolerationBuilder;
import io.fabric8.kubernetes.client.utils.KubernetesSerialization;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/// The operator's file of templates:
///
///     agentImage: registry.example/foredeck-agent:0.1.0
///     firewallImage: registry.example/foredeck-firewall:0.1.0
///     gatewayImage: registry.example/foredeck-control-plane:0.1.0   # only where Foredeck sets up its gateway itself
///     strong: {runtimeClass: gvisor, gvisor: true}
///     templates:
///       base:
///         image: registry.example/foredeck-base:0.1.0
///         workspace: disk                     # or memory, or {storageClass: fast}
///         nodeSelector: {pool: sandboxes}
///         tolerations: [{key: sandboxes, operator: Exists}]
///
/// What is not listed here cannot be said: a template never changes what holds its pods in.
///
/// @param byName in the file's order; the first is the default
record Templates(
    String agentImage,
    String firewallImage,
    Optional<String> gatewayImage,
    Optional<StrongRuntime> strong,
    Map<String, Template> byName) {
  private static final Pattern NAME = Pattern.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?");
  private static final Set<String> FILE_KEYS =
      Set.of("agentImage", "firewallImage", "gatewayImage", "strong", "templates");
  private static final Set<String> TEMPLATE_KEYS =
      Set.of(
          "image",
          "runtimeClass",
          "userNamespace",
          "workspace",
          "nodeSelector",
          "tolerations",
          "imagePullSecrets",
          "priorityClass",
          "labels",
          "annotations");
  private static final Set<String> TOLERATION_KEYS =
      Set.of("key", "operator", "value", "effect", "tolerationSeconds");

  /// @throws IllegalArgumentException naming the place in the file and what would be right
  static Templates parse(String yaml) {
    Object root;
    try {
      root = new KubernetesSerialization().unmarshal(yaml, Object.class);
    } catch (RuntimeException e) {
      throw new IllegalArgumentException("it is not YAML: " + PodView.text(e.getMessage()));
    }
    Node file = Node.of("", root, FILE_KEYS);
    Map<String, Template> byName = new LinkedHashMap<>();
    file.map("templates").forEach((name, value) -> byName.put(name(name), template(name, value)));
    if (byName.isEmpty()) {
      throw new IllegalArgumentException("templates: there is none");
    }
    return new Templates(
        file.text("agentImage"),
        file.text("firewallImage"),
        file.optional("gatewayImage"),
        strong(file),
        byName);
  }

  private static Optional<StrongRuntime> strong(Node file) {
    if (file.value("strong") == null) {
      return Optional.empty();
    }
    Node strong = Node.of("strong", file.value("strong"), Set.of("runtimeClass", "gvisor"));
    return Optional.of(new StrongRuntime(strong.text("runtimeClass"), strong.flag("gvisor", true)));
  }

  private static String name(String name) {
    if (!NAME.matcher(name).matches()) {
      throw new IllegalArgumentException("templates." + name + ": a name matches " + NAME);
    }
    return name;
  }

  private static Template template(String name, @Nullable Object value) {
    Node node = Node.of("templates." + name, value, TEMPLATE_KEYS);
    return new Template(
        node.text("image"),
        node.optional("runtimeClass"),
        node.flag("userNamespace", true),
        workspace(node),
        node.texts("nodeSelector"),
        tolerations(node),
        node.list("imagePullSecrets").stream()
            .map(each -> node.text("imagePullSecrets", each))
            .toList(),
        node.optional("priorityClass"),
        ours(node, "labels"),
        ours(node, "annotations"));
  }

  private static Template.Workspace workspace(Node node) {
    return switch (node.value("workspace")) {
      case null -> new Template.Workspace.NodeDisk();
      case String place when place.equals("disk") -> new Template.Workspace.NodeDisk();
      case String place when place.equals("memory") -> new Template.Workspace.Memory();
      case Map<?, ?> volume ->
          new Template.Workspace.Volume(
              Node.of(node.path + ".workspace", volume, Set.of("storageClass"))
                  .text("storageClass"));
      default ->
          throw new IllegalArgumentException(
              node.path + ".workspace: it must be disk, memory or {storageClass: NAME}");
    };
  }

  private static List<Toleration> tolerations(Node node) {
    List<Toleration> tolerations = new ArrayList<>();
    for (Object value : node.list("tolerations")) {
      Node each = Node.of(node.path + ".tolerations", value, TOLERATION_KEYS);
      TolerationBuilder toleration = new TolerationBuilder();
      each.optional("key").ifPresent(toleration::withKey);
      each.optional("operator").ifPresent(toleration::withOperator);
      each.optional("value").ifPresent(toleration::withValue);
      each.optional("effect").ifPresent(toleration::withEffect);
      if (each.value("tolerationSeconds") instanceof Number seconds) {
        toleration.withTolerationSeconds(seconds.longValue());
      }
      tolerations.add(toleration.build());
    }
    return tolerations;
  }

  /// Labels and annotations of the driver's own name space decide whose pods are whose.
  private static Map<String, String> ours(Node node, String key) {
    Map<String, String> texts = node.texts(key);
    for (String name : texts.keySet()) {
      String domain = name.contains("/") ? name.substring(0, name.indexOf('/')) : "";
      if (domain.endsWith("foredeck.dev")
          || domain.endsWith("kubernetes.io")
          || domain.endsWith("k8s.io")) {
        throw new IllegalArgumentException(
            node.path
                + "."
                + key
                + "."
                + name
                + ": names of "
                + domain
                + " are not the operator's");
      }
    }
    return texts;
  }

  /// A mapping of the file, with its path for messages.
  private record Node(String path, Map<?, ?> values) {
    static Node of(String path, @Nullable Object value, Set<String> known) {
      String where = path.isEmpty() ? "the file" : path;
      if (!(value instanceof Map<?, ?> values)) {
        throw new IllegalArgumentException(where + ": it must be a mapping");
      }
      for (Object key : values.keySet()) {
        if (!known.contains(String.valueOf(key))) {
          throw new IllegalArgumentException(
              where
                  + ": there is no '"
                  + key
                  + "'; there are "
                  + String.join(", ", new TreeSet<>(known)));
        }
      }
      return new Node(path, values);
    }

    private String at(String key) {
      return path.isEmpty() ? key : path + "." + key;
    }

    @Nullable Object value(String key) {
      return values.get(key);
    }

    String text(String key) {
      return text(key, values.get(key));
    }

    String text(String key, @Nullable Object value) {
      if (value instanceof String text && !text.isBlank()) {
        return text;
      }
      throw new IllegalArgumentException(at(key) + ": it must be text");
    }

    Optional<String> optional(String key) {
      return values.get(key) == null ? Optional.empty() : Optional.of(text(key));
    }

    boolean flag(String key, boolean absent) {
      return switch (values.get(key)) {
        case null -> absent;
        case Boolean flag -> flag;
        default -> throw new IllegalArgumentException(at(key) + ": it must be true or false");
      };
    }

    List<?> list(String key) {
      return switch (values.get(key)) {
        case null -> List.of();
        case List<?> list -> list;
        default -> throw new IllegalArgumentException(at(key) + ": it must be a list");
      };
    }

    Map<String, Object> map(String key) {
      return switch (values.get(key)) {
        case null -> Map.of();
        case Map<?, ?> map -> {
          Map<String, Object> named = new LinkedHashMap<>();
          map.forEach((name, value) -> named.put(String.valueOf(name), value));
          yield named;
        }
        default -> throw new IllegalArgumentException(at(key) + ": it must be a mapping");
      };
    }

    Map<String, String> texts(String key) {
      Map<String, String> texts = new LinkedHashMap<>();
      map(key).forEach((name, value) -> texts.put(name, text(key + "." + name, value)));
      return texts;
    }
  }
}
