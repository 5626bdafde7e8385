package dev.foredeck.agent;

import dev.foredeck.protocol.CertificatePin;
import dev.foredeck.protocol.Message;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// Connects the bridge to the egress gateway.
interface GatewayDialler {

  /// @throws IOException when the gateway cannot be reached
  Duplex dial() throws IOException;

  /// The gateway listens on a unix socket that only this sandbox can reach.
  static GatewayDialler unix(Path socket) {
    UnixDomainSocketAddress address = UnixDomainSocketAddress.of(socket);
    return () -> {
      SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX);
      try {
        boolean _ = channel.connect(address);
      } catch (IOException e) {
        channel.close();
        throw e;
      }
      return Duplex.of(channel);
    };
  }

  /// The gateway is reached over the network, is known by the deployment's certificate, and knows
  /// the sandbox by a credential: one line before the first byte. Where it is, the control plane
  /// says.
  final class Pinned implements GatewayDialler {
    private static final int CONNECT_MILLIS = 10_000;

    private final CertificatePin pin;
    private volatile @Nullable Address address;

    private record Address(InetSocketAddress where, String preamble) {}

    Pinned(CertificatePin pin) {
      this.pin = pin;
    }

    /// What the control plane's newest connection said.
    void told(Optional<Message.Gateway> gateway) {
      address =
          gateway
              .map(g ->
                  new Address(
                      new InetSocketAddress(InetAddress.ofLiteral(g.address()), g.port()),
                      "FOREDECK/1 " + g.sandbox() + " " + g.credential() + "\n"))
              .orElse(null);
    }

    @Override
    public Duplex dial() throws IOException {
      Address to = address;
      if (to == null) {
        throw new IOException("the control plane has named no gateway");
      }
      Socket raw = new Socket();
      try {
        raw.setTcpNoDelay(true);
        raw.connect(to.where, CONNECT_MILLIS);
        Duplex gateway = Duplex.of(pin.over(raw), raw);
        gateway.out().write(to.preamble.getBytes(StandardCharsets.US_ASCII));
        return gateway;
      } catch (IOException e) {
        raw.close();
        throw e;
      }
    }
  }
}
