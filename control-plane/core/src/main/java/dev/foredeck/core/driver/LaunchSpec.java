package dev.foredeck.core.driver;

import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.policy.Boundary;
import java.time.Instant;
import java.util.Map;
import java.util.Optional;

/// What a driver gets to make a sandbox real. The same id always comes with the same spec.
///
/// @param sandbox the sandbox's id, which names everything the driver makes for it
/// @param tenant whose it is, for the backend's labels; empty for a warm one, whose labels stay as
///   they are when it is claimed
/// @param template what it is made from, as `host`
/// @param token what the sandbox's agent must greet with; secret
/// @param boundary what must be enforced; a driver that cannot refuses with
///   [DriverException.Refused]
/// @param labels for the backend, where it has labels; nothing is enforced by them
/// @param expiresAt after this the sandbox is destroyed, by the backend itself where it can
public record LaunchSpec(
    Id sandbox,
    Optional<Id> tenant,
    String template,
    Resources resources,
    Boundary boundary,
    String token,
    Map<String, String> labels,
    Instant expiresAt) {
  public LaunchSpec {
    labels = Map.copyOf(labels);
  }

  /// Of a sandbox that somebody asked for.
  public LaunchSpec(
      Id sandbox,
      Id tenant,
      String template,
      Resources resources,
      Boundary boundary,
      String token,
      Map<String, String> labels,
      Instant expiresAt) {
    this(sandbox, Optional.of(tenant), template, resources, boundary, token, labels, expiresAt);
  }

  @Override
  public String toString() {
    return "LaunchSpec[" + sandbox + ", " + template + ", " + resources + "]";
  }
}
