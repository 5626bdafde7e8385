package dev.foredeck.egress;

import java.net.InetAddress;
import java.net.NetworkInterface;
import java.net.SocketException;
import java.util.Set;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/// The addresses of this host's interfaces, asked for anew every five seconds: public ones too, for
/// the control plane's own ports are behind them. Thread-safe.
public final class LocalAddresses implements Supplier<Set<InetAddress>> {
  private static final long MAX_AGE_NANOS = 5_000_000_000L;

  private record Snapshot(Set<InetAddress> addresses, long takenNanos) {}

  private final LongSupplier nanoTime;
  private volatile @Nullable Snapshot snapshot;

  public LocalAddresses(LongSupplier nanoTime) {
    this.nanoTime = nanoTime;
  }

  /// @throws IllegalStateException where the system does not tell, so that the caller fails closed
  @Override
  public Set<InetAddress> get() {
    long now = nanoTime.getAsLong();
    Snapshot known = snapshot;
    if (known == null || now - known.takenNanos() > MAX_AGE_NANOS) {
      known = new Snapshot(read(), now);
      snapshot = known;
    }
    return known.addresses();
  }

  private static Set<InetAddress> read() {
    try {
      return NetworkInterface.networkInterfaces()
          .flatMap(NetworkInterface::inetAddresses)
          .map(AddressRules::plain)
          .collect(Collectors.toUnmodifiableSet());
    } catch (SocketException e) {
      throw new IllegalStateException("this host's own addresses cannot be listed", e);
    }
  }
}
