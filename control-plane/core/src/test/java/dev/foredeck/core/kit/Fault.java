package dev.foredeck.core.kit;

import dev.foredeck.core.driver.DriverException;

/// Is asked at every point where the control plane could die or its backend fail.
public interface Fault {
  Fault NONE = _ -> {};

  /// @param point as `launch.before`, `destroy.half`, `send.after.Ack`
  void at(String point) throws DriverException;
}
