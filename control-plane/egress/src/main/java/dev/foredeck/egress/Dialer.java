package dev.foredeck.egress;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.channels.SocketChannel;

/// The way to a gateway's control port: an address, or whatever leads there (a port that a cluster
/// forwards).
@FunctionalInterface
public interface Dialer {
  /// @return connected and blocking; owned by the caller
  SocketChannel dial(int timeoutMillis) throws IOException;

  /// Resolves the name at each attempt: a gateway that moved is found again.
  static Dialer to(String host, int port) {
    return to(() -> new InetSocketAddress(host, port));
  }

  /// Asks for the address at each attempt.
  static Dialer to(Place place) {
    return timeoutMillis -> {
      SocketChannel channel = SocketChannel.open();
      try {
        channel.socket().connect(place.address(), timeoutMillis);
        return channel;
      } catch (IOException | RuntimeException e) {
        channel.close();
        throw e;
      }
    };
  }

  /// Where a gateway's control port is now.
  @FunctionalInterface
  interface Place {
    InetSocketAddress address() throws IOException;
  }
}
