package dev.foredeck.agent;

import dev.foredeck.protocol.Connection;
import dev.foredeck.protocol.Message;
import dev.foredeck.protocol.Message.FailureCode;
import dev.foredeck.protocol.Wire.MalformedMessageException;
import java.io.IOException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;

/// Greets the control plane, and has the request that follows served.
///
/// Threads: each thread in [#dial] keeps one greeted connection spare; each request gets a virtual
/// thread of its own.
final class Greeter {
  /// Connections at a time: each known process may have its reader and as many more requests.
  private static final int CONNECTIONS = 160;

  private static final long FIRST_PAUSE_MILLIS = 10;
  private static final long LAST_PAUSE_MILLIS = 500;

  private final Message.Greeting greeting;
  private final Requests requests;
  private final Semaphore connections = new Semaphore(CONNECTIONS);
  private final CountDownLatch asked = new CountDownLatch(1);

  Greeter(Message.Greeting greeting, Requests requests) {
    this.greeting = greeting;
    this.requests = requests;
  }

  /// Keeps a connection spare for the control plane's next request, for ever: a control plane that
  /// is gone comes back, and finds the processes of before.
  void dial(UnixDialler dialler) throws InterruptedException {
    long pauseMillis = FIRST_PAUSE_MILLIS;
    while (true) {
      connections.acquire();
      boolean taken = false;
      try {
        taken = dialOnce(dialler);
      } finally {
        if (!taken) {
          connections.release();
        }
      }
      if (taken) {
        pauseMillis = FIRST_PAUSE_MILLIS;
      } else {
        // Also where the connection was made and then dropped: that must not become a busy loop.
        Thread.sleep(pauseMillis);
        pauseMillis = Math.min(2 * pauseMillis, LAST_PAUSE_MILLIS);
      }
    }
  }

  /// @return whether somebody has ever asked for something, now or until then
  boolean awaitRequest(long millis) throws InterruptedException {
    return asked.await(millis, TimeUnit.MILLISECONDS);
  }

  private boolean dialOnce(UnixDialler dialler) {
    try {
      return greet(dialler.next());
    } catch (IOException _) {
      return false;
    }
  }

  /// For the control plane that dialled; returns when its request came or it went away. Closes the
  /// connection where there are too many.
  void admit(Connection connection) {
    if (!connections.tryAcquire()) {
      tell(
          connection,
          new Message.Failure(FailureCode.LIMIT, CONNECTIONS + " connections are open"));
      connection.close();
      return;
    }
    boolean taken = false;
    try {
      taken = greet(connection);
    } finally {
      if (!taken) {
        connections.release();
      }
    }
  }

  /// @return whether a request came, which gives the permit back when it is done
  private boolean greet(Connection connection) {
    try {
      connection.send(greeting);
      Message first = connection.receive();
      if (first instanceof Message.Request request) {
        asked.countDown();
        Thread _ = Thread.ofVirtual().start(() -> serve(connection, request));
        return true;
      }
      if (first != null) {
        connection.send(
            new Message.Failure(
                FailureCode.BAD_REQUEST, first.getClass().getSimpleName() + " is no request"));
      }
    } catch (MalformedMessageException e) {
      tell(
          connection, new Message.Failure(FailureCode.BAD_REQUEST, String.valueOf(e.getMessage())));
    } catch (IOException _) {
      // The control plane went away.
    }
    connection.close();
    return false;
  }

  private void serve(Connection connection, Message.Request request) {
    try (connection) {
      requests.serve(connection, request);
    } catch (IOException _) {
      // The control plane went away; what was asked for goes on, and it will ask again.
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    } catch (RuntimeException e) {
      Log.warn("a bug in " + request.getClass().getSimpleName(), e);
      tell(connection, new Message.Failure(FailureCode.IO, "the agent failed: " + e.getClass()));
    } finally {
      connections.release();
    }
  }

  static void tell(Connection connection, Message.Failure failure) {
    try {
      connection.send(failure);
    } catch (IOException _) {
      // Nobody is there to hear it.
    }
  }
}
