package dev.foredeck.core.sandbox;

import dev.foredeck.core.Limits;
import dev.foredeck.core.Problem.Violation;
import dev.foredeck.core.Resources;
import dev.foredeck.policy.Boundary;
import dev.foredeck.policy.HostPattern;
import dev.foredeck.policy.Policy;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Decides what a request gets: defaults where it is silent, and never more than policy and limits
/// allow. Asking for more is a violation that names the field and the rule; nothing is clamped.
/// Pure.
public final class Placement {
  static final long GIB = 1024L * 1024 * 1024;
  private static final Resources DEFAULT = new Resources(1000, GIB, 2 * GIB, 256);
  private static final Resources LEAST =
      new Resources(50, 128L * 1024 * 1024, 16L * 1024 * 1024, 64);

  /// @param violations empty when the rest may be used
  public record Decided(Resources resources, Duration ttl, List<Violation> violations) {}

  private final Policy policy;
  private final Limits limits;
  private final List<Violation> violations = new ArrayList<>();

  private Placement(Policy policy, Limits limits) {
    this.policy = policy;
    this.limits = limits;
  }

  public static Decided decide(ProvisionRequest request, Policy policy, Limits limits) {
    return new Placement(policy, limits).decide(request);
  }

  private Decided decide(ProvisionRequest request) {
    Boundary boundary = policy.boundary();
    long cpu =
        amount(
            "/resources/cpu",
            "cpu",
            request.cpuMillis().isPresent()
                ? Optional.of((long) request.cpuMillis().getAsInt())
                : Optional.empty(),
            DEFAULT.cpuMillis(),
            LEAST.cpuMillis(),
            boundary.cpuMillis().isPresent() ? boundary.cpuMillis().getAsInt() : Integer.MAX_VALUE,
            "thousandths of a core");
    long memory =
        amount(
            "/resources/memory",
            "memory",
            request.memoryBytes().isPresent()
                ? Optional.of(request.memoryBytes().getAsLong())
                : Optional.empty(),
            DEFAULT.memoryBytes(),
            LEAST.memoryBytes(),
            boundary.memoryBytes().orElse(Long.MAX_VALUE),
            "bytes");
    long disk =
        amount(
            "/resources/disk",
            "disk",
            request.diskBytes().isPresent()
                ? Optional.of(request.diskBytes().getAsLong())
                : Optional.empty(),
            DEFAULT.diskBytes(),
            LEAST.diskBytes(),
            boundary.diskBytes().orElse(Long.MAX_VALUE),
            "bytes");
    int pids = Math.min(DEFAULT.pids(), boundary.pids().orElse(DEFAULT.pids()));
    Duration ttl = ttl(request, boundary);
    network(request);
    return new Decided(new Resources((int) cpu, memory, disk, pids), ttl, List.copyOf(violations));
  }

  private long amount(
      String pointer,
      String limit,
      Optional<Long> asked,
      long byDefault,
      long least,
      long most,
      String unit) {
    if (asked.isEmpty()) {
      return Math.min(byDefault, most);
    }
    long amount = asked.get();
    if (amount < least) {
      violations.add(
          new Violation(
              pointer, "bad-value", amount + " " + unit + " are too few: at least " + least));
    } else if (amount > most) {
      notAllowed(
          pointer,
          amount + " " + unit + " are more than",
          most + " " + unit + " (boundary.limits." + limit + ")");
    }
    return amount;
  }

  private Duration ttl(ProvisionRequest request, Boundary boundary) {
    Duration lifetime = boundary.lifetime().orElse(limits.maxTtl());
    if (request.ttl().isEmpty()) {
      return limits.defaultTtl().compareTo(lifetime) < 0 ? limits.defaultTtl() : lifetime;
    }
    Duration ttl = request.ttl().get();
    if (!ttl.isPositive()) {
      violations.add(new Violation("/ttl", "bad-value", "a time to live is longer than 0"));
    } else if (ttl.compareTo(limits.maxTtl()) > 0) {
      violations.add(
          new Violation(
              "/ttl",
              "too-large",
              "the longest time to live is " + limits.maxTtl().toSeconds() + "s (maxTtl)"));
    } else if (ttl.compareTo(lifetime) > 0) {
      notAllowed(
          "/ttl",
          ttl.toSeconds() + "s are longer than",
          lifetime.toSeconds() + "s (boundary.limits.lifetime)");
    }
    return ttl;
  }

  private void network(ProvisionRequest request) {
    List<String> hosts = request.networkAllow().orElse(List.of());
    for (int i = 0; i < hosts.size(); i++) {
      String pointer = "/network/allow/" + i;
      try {
        HostPattern pattern = HostPattern.parse(hosts.get(i));
        if (!policy.admits(pattern)) {
          notAllowed(pointer, "'" + hosts.get(i) + "' is more than", "its egress rules");
        }
      } catch (IllegalArgumentException e) {
        String message = e.getMessage();
        violations.add(
            new Violation(pointer, "bad-value", message == null ? "not a host" : message));
      }
    }
  }

  private void notAllowed(String pointer, String asked, String allowed) {
    violations.add(
        new Violation(
            pointer,
            "not-allowed",
            asked + " what policy " + policy.reference() + " allows: " + allowed));
  }
}
