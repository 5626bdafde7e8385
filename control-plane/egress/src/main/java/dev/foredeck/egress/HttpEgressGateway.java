package dev.foredeck.egress;

import dev.foredeck.core.Id;
import dev.foredeck.core.egress.EgressGateway;
import dev.foredeck.core.egress.EgressPath;
import java.io.IOException;
import java.net.InetAddress;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/// The egress gateway as an HTTP/1.1 proxy: absolute-form requests and CONNECT, one unix socket per
/// sandbox, blocking channels on virtual threads.
///
/// Threading: the lock guards which sandboxes are open and is held for short; waiting for
/// connections to end happens outside of it. Each connection has a thread (two while both
/// directions move), each sandbox one that accepts and one that hands flows on; one timer thread
/// ends what takes too long.
///
/// Opening a sandbox again ends the connections that ran under its former rules: a tunnel that the
/// new rules would not allow does not outlive the old ones. Bytes already spent stay spent.
public final class HttpEgressGateway implements EgressGateway {
  private static final long DRAIN_MILLIS = 10_000;

  /// @param listener where the sandbox comes in
  private record Way(SandboxEgress egress, UnixListener listener) {
    void stop(String why) {
      listener.stop();
      egress.stop(why);
    }

    void drain() {
      listener.awaitEnd(DRAIN_MILLIS);
      egress.drain(DRAIN_MILLIS);
    }
  }

  private final ReentrantLock lock = new ReentrantLock();
  private final Map<Id, Way> open = new HashMap<>();
  private final Surroundings around;
  private boolean closed;

  /// @param ownAddresses of this host, which no sandbox may reach; see [LocalAddresses]
  /// @param nanoTime monotonic, as `System.nanoTime`
  public HttpEgressGateway(
      EgressLimits limits,
      Pins pins,
      Resolver resolver,
      Supplier<Set<InetAddress>> ownAddresses,
      LongSupplier nanoTime) {
    around = Surroundings.of(limits, pins, resolver, ownAddresses, nanoTime);
  }

  @Override
  public void open(Id sandbox, EgressPath path, EgressRules rules, FlowRecorder flows)
      throws IOException {
    switch (path) {
      case EgressPath.UnixSocket(Path socket) -> open(sandbox, socket, rules, flows);
      case EgressPath.Credential _ ->
          throw new IOException("this gateway listens on unix sockets alone");
    }
  }

  void open(Id sandbox, Path socket, EgressRules rules, FlowRecorder flows) throws IOException {
    @Nullable Way former;
    lock.lock();
    try {
      if (closed) {
        throw new IOException("the egress gateway is closed");
      }
      checkOwner(sandbox, socket);
      former = open.remove(sandbox);
      AtomicLong totalBytes = new AtomicLong();
      if (former != null) {
        totalBytes = former.egress().totalBytes();
        former.stop("the sandbox's egress rules were replaced");
      }
      SandboxEgress egress = new SandboxEgress(sandbox, rules, flows, around, totalBytes);
      try {
        open.put(sandbox, new Way(egress, UnixListener.listen(socket, egress)));
      } catch (IOException e) {
        egress.stop("the sandbox's egress could not be opened");
        egress.drain(DRAIN_MILLIS);
        throw e;
      }
    } finally {
      lock.unlock();
    }
    if (former != null) {
      former.drain();
    }
  }

  private void checkOwner(Id sandbox, Path socket) throws IOException {
    for (Map.Entry<Id, Way> entry : open.entrySet()) {
      if (!entry.getKey().equals(sandbox) && entry.getValue().listener().socket().equals(socket)) {
        throw new IOException("another sandbox listens at " + socket);
      }
    }
  }

  @Override
  public void close(Id sandbox) {
    @Nullable Way former;
    lock.lock();
    try {
      former = open.remove(sandbox);
      if (former == null) {
        return;
      }
      former.stop("the sandbox's egress was closed");
    } finally {
      lock.unlock();
    }
    former.drain();
  }

  @Override
  public void close() {
    List<Way> former;
    lock.lock();
    try {
      closed = true;
      former = new ArrayList<>(open.values());
      open.clear();
      for (Way way : former) {
        way.stop("the egress gateway was closed");
      }
    } finally {
      lock.unlock();
    }
    for (Way way : former) {
      way.drain();
    }
    around.close();
  }
}
