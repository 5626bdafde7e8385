package dev.foredeck.core;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.store.Store;
import dev.foredeck.policy.Policy;
import dev.foredeck.policy.PolicyCompiler;
import dev.foredeck.policy.PolicyException;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;

/// The policies in force, and every version that a living sandbox started under. Thread-safe.
public final class Policies {
  /// The one of whoever names none.
  public static final String DEFAULT = "default";

  private final Store store;
  private final Map<String, Policy> current = new TreeMap<>();
  private final Map<String, Policy> byReference = new ConcurrentHashMap<>();

  /// Compiles every source and keeps each version in the store.
  ///
  /// @param sources YAML by policy name
  /// @throws PolicyException with the faults of all of them
  public Policies(Map<String, String> sources, Store store) {
    this.store = store;
    PolicyCompiler compiler = compiler(sources);
    // A parent's faults come with each of its children.
    Set<PolicyException.Fault> faults = new LinkedHashSet<>();
    sources.forEach((name, source) -> {
      try {
        current.put(name, named(name, compiler.compile(name + ".yaml", source)));
      } catch (PolicyException e) {
        faults.addAll(e.faults());
      }
    });
    if (!faults.isEmpty()) {
      throw new PolicyException(List.copyOf(faults));
    }
    current.forEach((name, policy) -> {
      byReference.put(policy.reference(), policy);
      store.savePolicy(name, policy.version(), bundle(sources));
    });
  }

  private static Policy named(String name, Policy policy) {
    if (!policy.name().equals(name)) {
      throw new PolicyException(
          List.of(
              new PolicyException.Fault(
                  name + ".yaml",
                  1,
                  1,
                  "bad-value",
                  "metadata.name is '"
                      + policy.name()
                      + "': it must be the file's name, '"
                      + name
                      + "'")));
    }
    return policy;
  }

  /// The version in force of a policy.
  public Optional<Policy> named(String name) {
    return Optional.ofNullable(current.get(name));
  }

  public Set<String> names() {
    return current.keySet();
  }

  /// The version that a sandbox started under.
  ///
  /// @param reference `name@version`
  /// @throws IllegalStateException when the store has lost it: the caller must fail closed
  public Policy byReference(String reference) {
    return byReference.computeIfAbsent(reference, this::load);
  }

  private Policy load(String reference) {
    int at = reference.lastIndexOf('@');
    String name = reference.substring(0, at);
    String bundle =
        store
            .policy(name, reference.substring(at + 1))
            .orElseThrow(() -> new IllegalStateException("no policy " + reference + " is stored"));
    Map<String, String> sources = new TreeMap<>();
    Json.readObject(bundle)
        .properties()
        .forEach(entry -> sources.put(entry.getKey(), entry.getValue().asText()));
    String source = sources.get(name);
    if (source == null) {
      throw new IllegalStateException("the stored policy " + reference + " lacks its own source");
    }
    return compiler(sources).compile(name + ".yaml", source);
  }

  private static PolicyCompiler compiler(Map<String, String> sources) {
    return new PolicyCompiler(name -> Optional.ofNullable(sources.get(name)));
  }

  private static String bundle(Map<String, String> sources) {
    ObjectNode json = Json.object();
    sources.forEach(json::put);
    return Json.write(json);
  }
}
