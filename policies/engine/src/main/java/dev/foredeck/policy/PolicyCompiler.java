package dev.foredeck.policy;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;
import java.util.function.Function;

/// Turns the YAML source of a policy into a [Policy]. Reads all of a file before it gives up, so
/// that one load shows every fault. Thread-safe if `sources` is.
public final class PolicyCompiler {
  static final int MAX_PARENTS = 8;
  static final int MAX_ANCESTORS = 32;
  static final int MAX_EXTENDS_DEPTH = 8;

  private static final String API_VERSION = "foredeck/v1";
  private static final String KIND = "SandboxPolicy";
  private static final int VERSION_BYTES = 6;

  private final Function<String, Optional<String>> sources;

  /// @param sources the source of a policy by name, for `extends`
  public PolicyCompiler(Function<String, Optional<String>> sources) {
    this.sources = sources;
  }

  /// @param file the name that faults carry
  /// @throws PolicyException with every fault found
  public Policy compile(String file, String source) {
    return new Run().compile(file, source, List.of());
  }

  /// One compilation: remembers which ancestors are done, so that a policy that is reached twice is
  /// compiled once.
  private final class Run {
    private final Map<String, LayeredPolicy> done = new LinkedHashMap<>();

    private LayeredPolicy compile(String file, String source, List<String> descendants) {
      Faults faults = new Faults(file);
      Optional<LayeredPolicy> policy =
          YamlReader.read(source, faults).flatMap(root -> read(root, source, descendants, faults));
      if (!faults.none() || policy.isEmpty()) {
        throw new PolicyException(faults.inOrder());
      }
      return policy.get();
    }

    private Optional<LayeredPolicy> read(
        YamlNode root, String source, List<String> descendants, Faults faults) {
      Optional<Fields> read =
          Fields.of(
              root,
              "a policy",
              Set.of(
                  "apiVersion",
                  "kind",
                  "metadata",
                  "extends",
                  "mode",
                  "boundary",
                  "egress",
                  "results",
                  "rules"),
              Set.of("budgets", "approval", "secrets"),
              faults);
      if (read.isEmpty()) {
        return Optional.empty();
      }
      Fields fields = read.get();
      constant(fields, "apiVersion", API_VERSION, faults);
      constant(fields, "kind", KIND, faults);
      Optional<String> name = name(fields, faults);
      if (name.isPresent() && !descendants.isEmpty() && !descendants.getLast().equals(name.get())) {
        faults.add(
            fields.at("metadata"),
            "bad-value",
            "this policy was asked for as '"
                + descendants.getLast()
                + "' and says that it is '"
                + name.get()
                + "'");
      }
      List<String> path = descendants;
      if (descendants.isEmpty() && name.isPresent()) {
        path = List.of(name.get());
      }
      List<LayeredPolicy> parents = parents(fields, path, faults);
      boolean shadow = shadow(fields, parents, faults);
      Boundary boundary =
          new BoundaryReader(faults).read(fields.get("boundary"), fields.at("extends"), parents);
      RuleReader reader = new RuleReader(faults);
      List<Rule> rules = new ArrayList<>(reader.egress(fields, parents));
      OptionalLong maxResultBytes = reader.results(fields, parents);
      rules.addAll(reader.rules(fields));
      if (rules.size() > RuleReader.MAX_RULES) {
        faults.add(
            fields.node(),
            "bad-value",
            "the policy has " + rules.size() + " rules; the limit is " + RuleReader.MAX_RULES);
      }
      if (name.isEmpty() || !faults.none()) {
        return Optional.empty();
      }
      Layer own =
          Layer.of(
              name.get(),
              version(source, parents),
              rules,
              closed(rules, !parents.isEmpty(), fields));
      return Optional.of(new LayeredPolicy(shadow, boundary, maxResultBytes, layers(own, parents)));
    }

    private List<LayeredPolicy> parents(Fields fields, List<String> path, Faults faults) {
      List<LayeredPolicy> parents = new ArrayList<>();
      for (YamlNode.Scalar parent : fields.textOrTexts("extends", MAX_PARENTS)) {
        parent(parent, path, faults).ifPresent(parents::add);
      }
      return parents;
    }

    private Optional<LayeredPolicy> parent(YamlNode.Scalar at, List<String> path, Faults faults) {
      String name = at.text();
      if (path.contains(name)) {
        faults.add(
            at,
            "bad-value",
            "a policy cannot extend itself: " + String.join(" -> ", path) + " -> " + name);
        return Optional.empty();
      }
      if (path.size() >= MAX_EXTENDS_DEPTH || done.size() >= MAX_ANCESTORS) {
        faults.add(
            at,
            "bad-value",
            "policies extend each other at most "
                + MAX_EXTENDS_DEPTH
                + " deep and "
                + MAX_ANCESTORS
                + " in all");
        return Optional.empty();
      }
      LayeredPolicy known = done.get(name);
      if (known != null) {
        return Optional.of(known);
      }
      Optional<String> source = sources.apply(name);
      if (source.isEmpty()) {
        faults.add(at, "bad-value", "there is no policy '" + name + "' to extend");
        return Optional.empty();
      }
      List<String> deeper = new ArrayList<>(path);
      deeper.add(name);
      try {
        LayeredPolicy parent = compile(name, source.get(), List.copyOf(deeper));
        done.put(name, parent);
        return Optional.of(parent);
      } catch (PolicyException broken) {
        faults.add(at, "bad-value", "the policy '" + name + "' has faults of its own");
        faults.addAll(broken.faults());
        return Optional.empty();
      }
    }
  }

  private static void constant(Fields fields, String name, String expected, Faults faults) {
    Optional<String> given = fields.requiredText(name);
    if (given.isPresent() && !given.get().equals(expected)) {
      faults.add(
          fields.at(name),
          "bad-value",
          "unknown " + name + " '" + given.get() + "'; it must be '" + expected + "'");
    }
  }

  private static Optional<String> name(Fields fields, Faults faults) {
    Optional<Fields> metadata =
        fields
            .required("metadata")
            .flatMap(node -> Fields.of(node, "'metadata'", Set.of("name", "description"), faults));
    metadata.ifPresent(given -> given.text("description"));
    Optional<String> name = metadata.flatMap(given -> given.requiredText("name"));
    if (name.isPresent() && !RuleReader.isId(name.get())) {
      metadata.ifPresent(given ->
          faults.add(
              given.at("name"),
              "bad-value",
              "'"
                  + name.get()
                  + "' is not a name: at most 64 of a-z, 0-9, '-', '_' and '.', beginning"
                  + " with a letter or digit"));
      return Optional.empty();
    }
    return name;
  }

  private static boolean shadow(Fields fields, List<LayeredPolicy> parents, Faults faults) {
    boolean shadow =
        switch (fields.text("mode").orElse("enforce")) {
          case "enforce" -> false;
          case "shadow" -> true;
          case String other -> {
            faults.add(
                fields.at("mode"),
                "bad-value",
                "'"
                    + other
                    + "' is no mode: 'enforce' or 'shadow'"
                    + Nearest.suggestion(other, Set.of("enforce", "shadow")));
            yield false;
          }
        };
    for (LayeredPolicy parent : parents) {
      if (shadow && !parent.shadow()) {
        faults.add(
            fields.at("mode"),
            "widens",
            "'shadow' would stop enforcing '" + parent.name() + "', which this policy extends");
      }
    }
    return shadow;
  }

  /// A policy that extends nothing denies what it does not allow. One that extends another narrows:
  /// it is closed only for the actions it lists something allowed for, and for egress where it says
  /// `egress: []`.
  private static Set<ActionName> closed(List<Rule> rules, boolean extending, Fields fields) {
    if (!extending) {
      return EnumSet.allOf(ActionName.class);
    }
    EnumSet<ActionName> closed = EnumSet.noneOf(ActionName.class);
    for (Rule rule : rules) {
      if (rule.effect() == Effect.ALLOW) {
        closed.addAll(rule.actions());
      }
    }
    if (fields.has("egress") && fields.items("egress").isEmpty()) {
      closed.add(ActionName.EGRESS_CONNECT);
    }
    return closed;
  }

  private static List<Layer> layers(Layer own, List<LayeredPolicy> parents) {
    Map<String, Layer> layers = new LinkedHashMap<>();
    layers.put(own.name(), own);
    for (LayeredPolicy parent : parents) {
      for (Layer layer : parent.layers()) {
        layers.putIfAbsent(layer.name(), layer);
      }
    }
    return List.copyOf(layers.values());
  }

  /// Of the source without what editors change by themselves, and of what it extends.
  private static String version(String source, List<LayeredPolicy> parents) {
    try {
      MessageDigest digest = MessageDigest.getInstance("SHA-256");
      StringBuilder normalised = new StringBuilder();
      for (String line : source.replace("\r\n", "\n").replace("\uFEFF", "").split("\n", -1)) {
        normalised.append(line.stripTrailing()).append('\n');
      }
      digest.update(normalised.toString().stripTrailing().getBytes(StandardCharsets.UTF_8));
      for (LayeredPolicy parent : parents) {
        digest.update(("\n\0" + parent.reference()).getBytes(StandardCharsets.UTF_8));
      }
      return HexFormat.of().formatHex(digest.digest(), 0, VERSION_BYTES);
    } catch (NoSuchAlgorithmException missing) {
      throw new IllegalStateException("every JDK has SHA-256", missing);
    }
  }
}
