package dev.foredeck.store;

import dev.foredeck.core.Role;
import dev.foredeck.core.gate.CallStatus;
import dev.foredeck.core.pool.WarmSandbox;
import dev.foredeck.core.sandbox.Phase;
import dev.foredeck.protocol.Channel;
import java.time.Instant;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.Arrays;
import java.util.Map;
import java.util.function.Function;
import java.util.stream.Collectors;

/// Values as columns hold them.
final class Wire {
  private static final Map<String, Phase> PHASES = byName(Phase.values(), Phase::wireName);
  private static final Map<String, CallStatus> STATUSES =
      byName(CallStatus.values(), CallStatus::wireName);
  private static final Map<String, WarmSandbox.State> WARM_STATES =
      byName(WarmSandbox.State.values(), WarmSandbox.State::wireName);
  private static final Map<String, Role> ROLES = byName(Role.values(), Role::wireName);
  private static final Map<String, Channel> CHANNELS = byName(Channel.values(), Channel::wireName);

  /// What text and databases agree on; nothing of ours is outside.
  private static final Instant FIRST = Instant.parse("0001-01-01T00:00:00Z");

  private static final Instant LAST = Instant.parse("9999-12-31T23:59:59.999999Z");

  private Wire() {}

  private static <T> Map<String, T> byName(T[] values, Function<T, String> name) {
    return Arrays.stream(values).collect(Collectors.toUnmodifiableMap(name, value -> value));
  }

  static Phase phase(String name) {
    return known(PHASES, name);
  }

  static CallStatus status(String name) {
    return known(STATUSES, name);
  }

  static WarmSandbox.State warmState(String name) {
    return known(WARM_STATES, name);
  }

  static Role role(String name) {
    return known(ROLES, name);
  }

  static Channel channel(String name) {
    return known(CHANNELS, name);
  }

  private static <T> T known(Map<String, T> values, String name) {
    T value = values.get(name);
    if (value == null) {
      throw new IllegalStateException(
          "the database holds a value that this version does not know: " + name);
    }
    return value;
  }

  static Instant clamped(Instant instant) {
    if (instant.isBefore(FIRST)) {
      return FIRST;
    }
    return instant.isAfter(LAST) ? LAST : instant;
  }

  static OffsetDateTime time(Instant instant) {
    return clamped(instant).atOffset(ZoneOffset.UTC);
  }
}
