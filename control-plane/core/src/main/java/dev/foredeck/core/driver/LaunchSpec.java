package dev.foredeck.core.driver;

import dev.foredeck.core.Id;
import dev.foredeck.core.Resources;
import dev.foredeck.policy.Boundary;
import java.time.Instant;
import java.util.Map;

/// What a driver gets to make a sandbox real. The same id always comes with the same spec.
///
/// @param sandbox the sandbox's id, which names everything the driver makes for it
/// @param template what it is made from, as `host`
/// @param token what the sandbox's agent must greet with; secret
/// @param boundary what must be enforced; a driver that cannot refuses with
///   [DriverException.Refused]
/// @param labels for the backend, where it has labels; nothing is enforced by them
/// @param expiresAt after this the sandbox is destroyed, by the backend itself where it can
public record LaunchSpec(
    Id sandbox,
    Id tenant,
    String template,
    Resources resources,
    Boundary boundary,
    String token,
    Map<String, String> labels,
    Instant expiresAt) {
  public LaunchSpec {
    labels = Map.copyOf(labels);
  }

  @Override
  public String toString() {
    return "LaunchSpec[" + sandbox + ", " + template + ", " + resources + "]";
  }
}
