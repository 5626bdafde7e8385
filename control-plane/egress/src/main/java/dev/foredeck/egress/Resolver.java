package dev.foredeck.egress;

import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.List;

/// Finds the addresses of a name. May block: the gateway calls it on a thread of its own and stops
/// waiting in time.
@FunctionalInterface
public interface Resolver {
  /// @param name canonical: lower case, without trailing dot, never an IP literal
  List<InetAddress> resolve(String name) throws UnknownHostException;

  /// The system's resolver. It asks for the absolute name, so that no search domain of this host (a
  /// cluster's, a company's) can turn a public name into an internal one. The JDK keeps answers for
  /// a few seconds; that is the only cache.
  static Resolver system() {
    return name -> List.of(InetAddress.getAllByName(name + "."));
  }
}
