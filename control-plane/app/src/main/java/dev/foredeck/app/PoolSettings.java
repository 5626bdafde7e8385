package dev.foredeck.app;

import dev.foredeck.app.Configuration.ConfigurationException;
import dev.foredeck.core.pool.PoolSetting;
import dev.foredeck.core.pool.PoolSize;
import dev.foredeck.server.Quantity;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/// `FOREDECK_POOLS`: which warm pools there are. Pools are separated by commas, each is
/// `TEMPLATE[+policy=NAME][+cpu=1][+memory=1Gi][+disk=2Gi]:FLOOR-CEILING`, and what is left out is
/// what a request that is silent gets. `default` names the driver's first template.
final class PoolSettings {
  static final String KEY = "FOREDECK_POOLS";

  /// One stands ready without anybody having configured anything.
  static final String DEFAULT = "default:1-4";

  private static final int MOST_POOLS = 32;
  private static final Pattern POOL = Pattern.compile("([^:]*):([0-9]{1,6})(?:-([0-9]{1,6}))?");
  private static final Set<String> KNOWN = new TreeSet<>(Set.of("policy", "cpu", "memory", "disk"));

  private PoolSettings() {}

  /// @param text `off` for none
  /// @throws ConfigurationException that names the pool and what would be right
  static List<PoolSetting> parse(String text) {
    List<PoolSetting> settings = new ArrayList<>();
    if (text.strip().equals("off")) {
      return settings;
    }
    for (String pool : text.split(",", -1)) {
      if (!pool.isBlank()) {
        setting(pool.strip()).ifPresent(settings::add);
      }
    }
    if (settings.size() > MOST_POOLS) {
      throw new ConfigurationException(
          KEY + " names " + settings.size() + " pools: there may be " + MOST_POOLS);
    }
    return settings;
  }

  /// Empty for a pool whose ceiling is 0.
  private static Optional<PoolSetting> setting(String pool) {
    Matcher m = POOL.matcher(pool);
    if (!m.matches()) {
      throw wrong(
          pool, "a pool is TEMPLATE[+policy=NAME][+cpu=1][+memory=1Gi][+disk=2Gi]:FLOOR-CEILING");
    }
    String[] parts = m.group(1).split("\\+", -1);
    String template = parts[0].strip();
    if (template.isEmpty()) {
      throw wrong(pool, "it names no template; `default` is the driver's first");
    }
    Map<String, String> values = new HashMap<>();
    for (int i = 1; i < parts.length; i++) {
      int equals = parts[i].indexOf('=');
      String name = equals < 0 ? parts[i].strip() : parts[i].substring(0, equals).strip();
      if (equals < 0 || !KNOWN.contains(name)) {
        throw wrong(
            pool, "'" + parts[i].strip() + "' is not one of " + String.join("=, ", KNOWN) + "=");
      }
      if (values.put(name, parts[i].substring(equals + 1).strip()) != null) {
        throw wrong(pool, "it names " + name + " twice");
      }
    }
    int floor = Integer.parseInt(m.group(2));
    PoolSize size;
    try {
      size = new PoolSize(floor, m.group(3) == null ? floor : Integer.parseInt(m.group(3)));
    } catch (IllegalArgumentException e) {
      throw wrong(pool, String.valueOf(e.getMessage()));
    }
    PoolSetting setting =
        new PoolSetting(
            template.equals("default") ? Optional.empty() : Optional.of(template),
            Optional.ofNullable(values.get("policy")),
            cpu(pool, values),
            size(pool, values, "memory"),
            size(pool, values, "disk"),
            size);
    return size.ceiling() == 0 ? Optional.empty() : Optional.of(setting);
  }

  private static OptionalInt cpu(String pool, Map<String, String> values) {
    String text = values.get("cpu");
    if (text == null) {
      return OptionalInt.empty();
    }
    OptionalInt millis = Quantity.cpuMillis(text);
    if (millis.isEmpty()) {
      throw wrong(pool, "cpu is '" + text + "': it must be as 1, 0.5 or 500m");
    }
    return millis;
  }

  private static OptionalLong size(String pool, Map<String, String> values, String name) {
    String text = values.get(name);
    if (text == null) {
      return OptionalLong.empty();
    }
    OptionalLong bytes = Quantity.size(text);
    if (bytes.isEmpty()) {
      throw wrong(pool, name + " is '" + text + "': it must be as 512Mi or 2Gi");
    }
    return bytes;
  }

  private static ConfigurationException wrong(String pool, String why) {
    return new ConfigurationException(KEY + " holds '" + pool + "': " + why);
  }
}
