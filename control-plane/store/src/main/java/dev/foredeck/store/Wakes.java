package dev.foredeck.store;

import dev.foredeck.core.Id;
import dev.foredeck.core.store.Store.Subscription;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.LockSupport;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Tells readers that a log or a tenant's feed has grown: those of this process at once, those of
/// others by one NOTIFY for all commits of a few milliseconds, on a connection of its own. Always a
/// hint: who is woken reads the log, and whoever may have missed a hint (after a lost connection)
/// is woken too.
///
/// Threading: one thread notifies, one listens; the rest may be called by any.
final class Wakes implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(Wakes.class);

  private static final String CHANNEL = "foredeck_log";
  private static final String EVERYTHING = "*";
  private static final Duration COALESCE = Duration.ofMillis(5);
  private static final Duration RECONNECT_AFTER = Duration.ofMillis(200);

  /// A connection on which nothing comes is asked whether it lives.
  private static final int LISTEN_MILLIS = 5_000;

  /// PostgreSQL takes less than 8000 bytes.
  private static final int MAX_PAYLOAD_CHARS = 7_900;

  /// With more logs than this, "everything" is cheaper than the list.
  private static final int MAX_PENDING = 2_000;

  private final Connections connections;
  private final String origin;
  private final Map<Id, CopyOnWriteArrayList<Runnable>> subscribers = new ConcurrentHashMap<>();
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition grown = lock.newCondition();
  private final Set<Id> pending = new HashSet<>();
  private boolean pendingAll;
  private volatile boolean closed;
  private final Thread notifier;
  private final Thread listener;

  /// @param origin of this process, so that it does not wake itself twice
  Wakes(Connections connections, String origin) {
    this.connections = connections;
    this.origin = origin;
    this.notifier = Thread.ofPlatform().daemon().name("store-notify").unstarted(this::notifyOthers);
    this.listener = Thread.ofPlatform().daemon().name("store-listen").unstarted(this::listen);
  }

  void start() {
    notifier.start();
    listener.start();
  }

  /// @param grows a sandbox, whose log is read, or a tenant, all of whose logs are
  Subscription subscribe(Id grows, Runnable wake) {
    // A wrapper, so that closing one of two equal subscriptions leaves the other.
    Runnable own =
        new Runnable() {
          @Override
          public void run() {
            wake.run();
          }
        };
    subscribers.compute(
        grows,
        (_, list) -> {
          CopyOnWriteArrayList<Runnable> all = list == null ? new CopyOnWriteArrayList<>() : list;
          all.add(own);
          return all;
        });
    return () ->
        subscribers.computeIfPresent(
            grows, (_, list) -> list.remove(own) && list.isEmpty() ? null : list);
  }

  /// After a commit.
  void committed(Collection<Id> logs) {
    logs.forEach(this::wake);
    lock.lock();
    try {
      if (pending.size() + logs.size() > MAX_PENDING) {
        pendingAll = true;
        pending.clear();
      } else if (!pendingAll) {
        pending.addAll(logs);
      }
      grown.signal();
    } finally {
      lock.unlock();
    }
  }

  private void wake(Id log) {
    for (Runnable wake : subscribers.getOrDefault(log, new CopyOnWriteArrayList<>())) {
      try {
        wake.run();
      } catch (RuntimeException e) {
        LOG.warn("a subscriber of {} failed", log, e);
      }
    }
  }

  private void wakeEverybody() {
    subscribers.keySet().forEach(this::wake);
  }

  // To others.

  private void notifyOthers() {
    Connection connection = null;
    while (!closed) {
      List<String> payloads = nextPayloads();
      if (payloads.isEmpty()) {
        continue;
      }
      try {
        if (connection == null) {
          connection = connections.open();
        }
        try (PreparedStatement statement = connection.prepareStatement("select pg_notify(?, ?)")) {
          for (String payload : payloads) {
            statement.setString(1, CHANNEL);
            statement.setString(2, payload);
            statement.execute();
          }
        }
      } catch (SQLException e) {
        LOG.debug("cannot notify other replicas", e);
        close(connection);
        connection = null;
        lock.lock();
        try {
          pendingAll = true;
        } finally {
          lock.unlock();
        }
        LockSupport.parkNanos(RECONNECT_AFTER.toNanos());
      }
    }
    close(connection);
  }

  private List<String> nextPayloads() {
    lock.lock();
    try {
      while (pending.isEmpty() && !pendingAll) {
        if (closed) {
          return List.of();
        }
        grown.await();
      }
    } catch (InterruptedException _) {
      return List.of();
    } finally {
      lock.unlock();
    }
    LockSupport.parkNanos(COALESCE.toNanos());
    lock.lock();
    try {
      List<String> payloads = payloads(origin, pending, pendingAll);
      pending.clear();
      pendingAll = false;
      return payloads;
    } finally {
      lock.unlock();
    }
  }

  static List<String> payloads(String origin, Collection<Id> logs, boolean all) {
    if (all) {
      return List.of(origin + ":" + EVERYTHING);
    }
    List<String> payloads = new ArrayList<>();
    StringBuilder next = new StringBuilder(origin).append(':');
    for (Id log : logs) {
      if (next.length() + 1 + log.value().length() > MAX_PAYLOAD_CHARS) {
        payloads.add(next.toString());
        next = new StringBuilder(origin).append(':');
      }
      if (next.charAt(next.length() - 1) != ':') {
        next.append(',');
      }
      next.append(log.value());
    }
    payloads.add(next.toString());
    return payloads;
  }

  // From others.

  private void listen() {
    boolean first = true;
    while (!closed) {
      try (Connection connection = connections.open();
          Statement statement = connection.createStatement()) {
        statement.execute("listen " + CHANNEL);
        if (!first) {
          wakeEverybody();
        }
        first = false;
        PGConnection driver = connection.unwrap(PGConnection.class);
        while (!closed) {
          PGNotification[] notifications = driver.getNotifications(LISTEN_MILLIS);
          if (notifications == null || notifications.length == 0) {
            statement.execute("select 1");
            continue;
          }
          for (PGNotification notification : notifications) {
            received(notification.getParameter());
          }
        }
      } catch (SQLException e) {
        first = false;
        if (!closed) {
          LOG.debug("cannot listen for other replicas", e);
          LockSupport.parkNanos(RECONNECT_AFTER.toNanos());
        }
      }
    }
  }

  private void received(String payload) {
    int colon = payload.indexOf(':');
    if (colon < 0 || payload.substring(0, colon).equals(origin)) {
      return;
    }
    String logs = payload.substring(colon + 1);
    if (logs.equals(EVERYTHING)) {
      wakeEverybody();
      return;
    }
    for (String log : logs.split(",", -1)) {
      if (Id.isValid(log)) {
        wake(new Id(log));
      }
    }
  }

  private static void close(@Nullable Connection connection) {
    if (connection != null) {
      try {
        connection.close();
      } catch (SQLException e) {
        LOG.debug("cannot close a connection", e);
      }
    }
  }

  @Override
  public void close() {
    closed = true;
    notifier.interrupt();
    listener.interrupt();
    subscribers.clear();
  }
}
