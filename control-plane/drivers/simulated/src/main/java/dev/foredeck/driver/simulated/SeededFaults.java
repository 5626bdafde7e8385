package dev.foredeck.driver.simulated;

import dev.foredeck.core.Id;
import java.util.SplittableRandom;

/// Faults at random, the same ones in the same order for the same seed.
public final class SeededFaults implements Faults {
  private final SplittableRandom random;
  private final double verbRate;
  private final double agentRate;
  private final long maxLatencyMillis;

  /// @param verbRate share of launches and destroys that go wrong, 0 to 1
  /// @param agentRate share of connections that go wrong, 0 to 1
  public SeededFaults(long seed, double verbRate, double agentRate, long maxLatencyMillis) {
    this.random = new SplittableRandom(seed);
    this.verbRate = verbRate;
    this.agentRate = agentRate;
    this.maxLatencyMillis = maxLatencyMillis;
  }

  @Override
  public synchronized long latencyMillis(Occasion occasion, Id sandbox) {
    return maxLatencyMillis == 0 ? 0 : random.nextLong(maxLatencyMillis + 1);
  }

  @Override
  public VerbFault onLaunch(Id sandbox) {
    return verb();
  }

  @Override
  public VerbFault onDestroy(Id sandbox) {
    VerbFault fault = verb();
    // There is always room to have less.
    return fault == VerbFault.FULL ? VerbFault.FAILS : fault;
  }

  @Override
  public synchronized AgentFault onConnect(Id sandbox) {
    AgentFault[] all = AgentFault.values();
    return random.nextDouble() < agentRate
        ? all[1 + random.nextInt(all.length - 1)]
        : AgentFault.NONE;
  }

  private synchronized VerbFault verb() {
    VerbFault[] all = VerbFault.values();
    return random.nextDouble() < verbRate
        ? all[1 + random.nextInt(all.length - 1)]
        : VerbFault.NONE;
  }
}
