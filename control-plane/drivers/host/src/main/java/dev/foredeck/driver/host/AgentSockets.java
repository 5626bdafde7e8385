package dev.foredeck.driver.host;

import dev.foredeck.core.Id;
import dev.foredeck.core.driver.DriverException;
import java.io.IOException;
import java.nio.file.Files;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/// The listeners of this control plane, one for each sandbox, opened when first needed: the agent
/// dials until it is heard.
public final class AgentSockets implements AutoCloseable {
  private final HostPlaces places;
  private final Map<Id, AgentSocket> sockets = new ConcurrentHashMap<>();
  private volatile boolean closed;

  public AgentSockets(HostPlaces places) {
    this.places = places;
  }

  /// The sandbox's listener, opened now where this control plane has none yet.
  public AgentSocket listen(Id sandbox) throws IOException, DriverException.NotThere {
    AgentSocket known = sockets.get(sandbox);
    if (known != null && known.isOpen()) {
      return known;
    }
    // One at a time, whichever sandbox: it takes well under a millisecond.
    synchronized (sockets) {
      AgentSocket current = sockets.get(sandbox);
      if (current != null && current.isOpen()) {
        return current;
      }
      if (closed || !Files.isDirectory(places.socketFolder(sandbox))) {
        throw new DriverException.NotThere("no sandbox " + sandbox + " is launched");
      }
      byte[] tokenHash =
          Records.readTokenHash(places.folder(sandbox).launch())
              .orElseThrow(() -> new DriverException.NotThere("no sandbox " + sandbox));
      AgentSocket opened =
          AgentSocket.listen(places.socketFolder(sandbox).resolve("agent.sock"), tokenHash);
      sockets.put(sandbox, opened);
      return opened;
    }
  }

  /// Whoever waits for the sandbox's agent looks again whether it is there.
  public void close(Id sandbox) {
    AgentSocket socket = sockets.remove(sandbox);
    if (socket != null) {
      socket.close();
    }
  }

  @Override
  public void close() {
    synchronized (sockets) {
      closed = true;
      sockets.values().forEach(AgentSocket::close);
      sockets.clear();
    }
  }
}
