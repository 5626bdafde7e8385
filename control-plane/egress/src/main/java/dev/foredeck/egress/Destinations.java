package dev.foredeck.egress;

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.UnknownHostException;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.Semaphore;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/// From a host that policy admits to the addresses to connect to, checked. Nobody resolves again
/// after this: what was checked is what is connected to.
///
/// A name with one address that may not be reached is refused altogether, even where its others are
/// public: such an answer is either an attack (rebinding) or internal, and an internal name needs
/// the operator's pin. Thread-safe.
final class Destinations implements AutoCloseable {
  /// Of one name's addresses: more are neither checked nor tried, for more are never needed.
  private static final int MAX_ADDRESSES = 64;

  private static final int LOOKUP_THREADS = 32;

  private final Pins pins;
  private final Resolver resolver;
  private final AddressRules addressRules;
  private final long resolveMillis;
  private final ThreadPoolExecutor lookupThreads;

  Destinations(Pins pins, Resolver resolver, AddressRules addressRules, long resolveMillis) {
    this.pins = pins;
    this.resolver = resolver;
    this.addressRules = addressRules;
    this.resolveMillis = resolveMillis;
    // Platform threads, because a lookup blocks in native code and would hold a carrier.
    this.lookupThreads =
        new ThreadPoolExecutor(
            0,
            LOOKUP_THREADS,
            10,
            TimeUnit.SECONDS,
            new SynchronousQueue<>(),
            Thread.ofPlatform().daemon().name("egress-lookup-", 0).factory());
  }

  /// @param lookups the sandbox's own share of lookups; given back when the lookup itself ends, not
  ///   when its waiter gives up, so that a slow name server holds up one sandbox alone
  /// @return at least one address
  List<InetSocketAddress> find(Authority authority, Semaphore lookups) throws Refusal {
    Optional<InetSocketAddress> pin = pins.find(authority);
    if (pin.isPresent()) {
      return List.of(pin.get());
    }
    Optional<InetAddress> literal = authority.host().literal();
    List<InetAddress> addresses;
    if (literal.isPresent()) {
      addresses = List.of(literal.get());
    } else {
      addresses = resolve(authority.host().text(), lookups);
    }
    List<InetSocketAddress> checked = new ArrayList<>(addresses.size());
    for (InetAddress address : addresses) {
      check(authority.host(), address);
      checked.add(new InetSocketAddress(AddressRules.plain(address), authority.port()));
    }
    return checked;
  }

  private void check(Host host, InetAddress address) throws Refusal {
    Optional<String> refusal;
    try {
      refusal = addressRules.refusal(address);
    } catch (RuntimeException e) {
      throw Refusal.denied("private-address", "the gateway could not check the address");
    }
    if (refusal.isPresent()) {
      throw Refusal.denied(
          "private-address",
          host.text() + " leads to " + Addresses.text(address) + ", which is " + refusal.get());
    }
  }

  private List<InetAddress> resolve(String name, Semaphore lookups) throws Refusal {
    String late = name + " could not be resolved within " + resolveMillis + " ms";
    Future<List<InetAddress>> lookup;
    try {
      if (!lookups.tryAcquire(resolveMillis, TimeUnit.MILLISECONDS)) {
        throw Refusal.unresolved(late + ": other lookups of this sandbox are still under way");
      }
      try {
        lookup =
            lookupThreads.submit(() -> {
              try {
                return resolver.resolve(name);
              } finally {
                lookups.release();
              }
            });
      } catch (RejectedExecutionException _) {
        lookups.release();
        throw Refusal.unresolved(name + " could not be resolved: too many lookups are under way");
      }
      List<InetAddress> found = lookup.get(resolveMillis, TimeUnit.MILLISECONDS);
      if (found.isEmpty()) {
        throw Refusal.unresolved(name + " has no address");
      }
      if (found.size() > MAX_ADDRESSES) {
        throw Refusal.unresolved(name + " has more than " + MAX_ADDRESSES + " addresses");
      }
      return found;
    } catch (TimeoutException _) {
      throw Refusal.unresolved(late);
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
      throw Refusal.unresolved(name + " was not resolved: the gateway is closing");
    } catch (ExecutionException e) {
      if (e.getCause() instanceof UnknownHostException) {
        throw Refusal.unresolved(name + " has no address");
      }
      throw Refusal.unresolved(name + " could not be resolved");
    }
  }

  @Override
  public void close() {
    lookupThreads.shutdownNow();
  }
}
