package dev.foredeck.agent;

import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.FramedConnection;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;

/// Dials a unix socket that the control plane owns.
final class UnixDialler {
  private final UnixDomainSocketAddress address;

  UnixDialler(Path socket) {
    this.address = UnixDomainSocketAddress.of(socket);
  }

  Connection next() throws IOException {
    SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX);
    try {
      boolean _ = channel.connect(address);
    } catch (IOException e) {
      channel.close();
      throw e;
    }
    return FramedConnection.over(channel);
  }
}
