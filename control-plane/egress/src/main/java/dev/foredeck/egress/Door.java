package dev.foredeck.egress;

import dev.foredeck.core.DeploymentTls;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.LongSupplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// A TCP port where anybody may come: TLS, then what shows who it is, all within a bound of time
/// and of places. The place of one who fails stays taken for a while, so that trying costs time
/// and, for each address, runs out.
///
/// Threading: one virtual thread accepts, one looks after each connection.
final class Door implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(Door.class);
  private static final int BACKLOG = 512;
  private static final long ACCEPT_RETRY_MILLIS = 100;

  /// Somebody who has not shown who it is.
  interface Stranger {
    /// It has: neither its time nor its place is needed any more.
    void known();
  }

  /// What is behind the door.
  interface House {
    /// @param connection after the TLS handshake; owned by the house once [Stranger#known] is
    ///   called
    /// @throws IOException where it is turned away
    void enter(TlsConnection connection, InetAddress from, Stranger stranger)
        throws IOException, InterruptedException;
  }

  private final String name;
  private final ServerSocketChannel server;
  private final DeploymentTls tls;
  private final LinkLimits limits;
  private final ScheduledExecutorService timer;
  private final LongSupplier nanoTime;
  private final House house;
  private final AtomicInteger strangers = new AtomicInteger();
  private final Map<InetAddress, Integer> byAddress = new ConcurrentHashMap<>();

  /// Listens at once.
  ///
  /// @throws IOException where the address cannot be had
  Door(
      String name,
      InetSocketAddress address,
      DeploymentTls tls,
      LinkLimits limits,
      ScheduledExecutorService timer,
      LongSupplier nanoTime,
      House house)
      throws IOException {
    this.name = name;
    this.tls = tls;
    this.limits = limits;
    this.timer = timer;
    this.nanoTime = nanoTime;
    this.house = house;
    this.server = ServerSocketChannel.open();
    try {
      server.bind(address, BACKLOG);
    } catch (IOException e) {
      server.close();
      throw new IOException(address + " cannot be listened on: " + e.getMessage(), e);
    }
    Thread.ofVirtual().name("door-" + name).start(this::accept);
  }

  InetSocketAddress address() {
    return new InetSocketAddress(server.socket().getInetAddress(), server.socket().getLocalPort());
  }

  private void accept() {
    while (server.isOpen()) {
      try {
        SocketChannel channel = server.accept();
        InetAddress from = channel.socket().getInetAddress();
        if (takePlace(from)) {
          Thread.ofVirtual().name(name).start(() -> receive(channel, from));
        } else {
          channel.close();
        }
      } catch (ClosedChannelException _) {
        return;
      } catch (IOException | RuntimeException e) {
        log.warn("{}: a connection could not be accepted: {}", name, e.toString());
        try {
          Thread.sleep(ACCEPT_RETRY_MILLIS);
        } catch (InterruptedException _) {
          return;
        }
      }
    }
  }

  private boolean takePlace(InetAddress from) {
    if (strangers.incrementAndGet() > limits.strangers()
        || byAddress.merge(from, 1, Integer::sum) > limits.strangersPerAddress()) {
      log.debug("{}: too many connections that have not shown who they are, {}", name, from);
      // Where the first was too many, the second was not counted.
      if (strangers.getAndDecrement() <= limits.strangers()) {
        leave(from);
      }
      return false;
    }
    return true;
  }

  private void leave(InetAddress from) {
    byAddress.computeIfPresent(from, (_, count) -> count == 1 ? null : count - 1);
  }

  private void receive(SocketChannel channel, InetAddress from) {
    Place place = new Place(channel, from);
    try {
      TlsConnection connection = new TlsConnection(channel, tls.engine());
      connection.handshake();
      house.enter(connection, from, place);
    } catch (IOException e) {
      log.debug("{}: {} was turned away: {}", name, from, e.toString());
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    } catch (RuntimeException bug) {
      log.error("{}: a connection failed", name, bug);
    } finally {
      place.close();
    }
  }

  /// One stranger's time and place.
  private final class Place implements Stranger {
    private final SocketChannel channel;
    private final InetAddress from;
    private final Deadline deadline;
    private boolean known;

    Place(SocketChannel channel, InetAddress from) {
      this.channel = channel;
      this.from = from;
      this.deadline = new Deadline(timer, nanoTime, limits.greetingMillis(), _ -> shut(channel));
      deadline.within(limits.greetingMillis(), "the greeting");
    }

    @Override
    public void known() {
      known = true;
      deadline.close();
      giveBack();
    }

    private void giveBack() {
      strangers.decrementAndGet();
      leave(from);
    }

    void close() {
      deadline.close();
      if (known) {
        return;
      }
      shut(channel);
      try {
        Thread.sleep(limits.penaltyMillis());
      } catch (InterruptedException _) {
        Thread.currentThread().interrupt();
      }
      giveBack();
    }
  }

  private static void shut(SocketChannel channel) {
    try {
      channel.close();
    } catch (IOException e) {
      log.debug("a connection could not be closed: {}", e.toString());
    }
  }

  /// Accepts no more. Who is in stays.
  @Override
  public void close() {
    try {
      server.close();
    } catch (IOException e) {
      log.warn("{}: could not be closed: {}", name, e.toString());
    }
  }
}
