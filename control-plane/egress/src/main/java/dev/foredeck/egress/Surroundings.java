package dev.foredeck.egress;

import java.net.InetAddress;
import java.util.Set;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.function.LongSupplier;
import java.util.function.Supplier;

/// What all of a gateway's sandboxes share.
record Surroundings(
    EgressLimits limits,
    Destinations destinations,
    BufferPool buffers,
    ScheduledExecutorService timer,
    LongSupplier nanoTime)
    implements AutoCloseable {

  /// @param ownAddresses of this host, which no sandbox may reach; see [LocalAddresses]
  /// @param nanoTime monotonic, as `System.nanoTime`
  static Surroundings of(
      EgressLimits limits,
      Pins pins,
      Resolver resolver,
      Supplier<Set<InetAddress>> ownAddresses,
      LongSupplier nanoTime) {
    Destinations destinations =
        new Destinations(pins, resolver, new AddressRules(ownAddresses), limits.resolveMillis());
    return new Surroundings(
        limits, destinations, new BufferPool(), timer("egress-deadlines"), nanoTime);
  }

  /// One thread that ends what takes too long.
  static ScheduledThreadPoolExecutor timer(String name) {
    ScheduledThreadPoolExecutor timer =
        new ScheduledThreadPoolExecutor(1, Thread.ofPlatform().daemon().name(name).factory());
    timer.setRemoveOnCancelPolicy(true);
    return timer;
  }

  @Override
  public void close() {
    destinations.close();
    timer.shutdownNow();
  }
}
