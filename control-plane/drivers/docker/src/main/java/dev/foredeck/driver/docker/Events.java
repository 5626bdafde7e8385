package dev.foredeck.driver.docker;

import com.github.dockerjava.api.async.ResultCallback;
import com.github.dockerjava.api.model.Container;
import com.github.dockerjava.api.model.Event;
import dev.foredeck.core.Id;
import dev.foredeck.core.driver.DriverException;
import dev.foredeck.driver.host.Command;
import dev.foredeck.driver.host.Deadline;
import java.io.Closeable;
import java.io.IOException;
import java.time.Clock;
import java.time.Duration;
import java.util.HashSet;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Hears from the daemon when a container ends, goes away or runs out of memory, so that nobody has
/// to ask. When the daemon goes away it waits for the next one, and then asks once what has
/// happened meanwhile. An event is a hint: what is true is looked up.
///
/// Threads: one virtual thread holds the stream, the library's own thread delivers events.
final class Events implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(Events.class);
  private static final Duration FIRST_PAUSE = Duration.ofMillis(50);
  private static final Duration LONGEST_PAUSE = Duration.ofSeconds(2);
  private static final Duration ASK = Duration.ofSeconds(10);

  /// The stream begins this much before it was asked for: the daemon answers a moment before it
  /// listens.
  private static final Duration OVERLAP = Duration.ofSeconds(2);

  private final Daemon daemon;
  private final String deployment;
  private final Clock clock;
  private final Consumer<Id> ended;
  private final Set<Id> outOfMemory = ConcurrentHashMap.newKeySet();
  private final CountDownLatch closed = new CountDownLatch(1);
  private final CountDownLatch heard = new CountDownLatch(1);
  private final Thread thread;
  private volatile @Nullable Closeable stream;

  /// @param ended is told of each sandbox whose container has ended, some of them more than once
  Events(Daemon daemon, String deployment, Clock clock, Consumer<Id> ended) {
    this.daemon = daemon;
    this.deployment = deployment;
    this.clock = clock;
    this.ended = ended;
    this.thread = Thread.ofVirtual().name("docker events").start(this::run);
  }

  /// Whether a process of the sandbox was killed for want of memory, as far as was heard.
  boolean ranOutOfMemory(Id sandbox) {
    return outOfMemory.contains(sandbox);
  }

  /// Waits until the stream was open once.
  boolean awaitHeard(Duration timeout) throws InterruptedException {
    return heard.await(timeout.toMillis(), TimeUnit.MILLISECONDS);
  }

  private void run() {
    Duration pause = FIRST_PAUSE;
    try {
      while (closed.getCount() > 0) {
        if (listen()) {
          pause = FIRST_PAUSE;
        }
        if (closed.await(pause.toMillis(), TimeUnit.MILLISECONDS)) {
          return;
        }
        pause =
            pause.multipliedBy(2).compareTo(LONGEST_PAUSE) > 0
                ? LONGEST_PAUSE
                : pause.multipliedBy(2);
      }
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    }
  }

  /// Holds one stream until it ends.
  ///
  /// @return whether the daemon answered
  private boolean listen() throws InterruptedException {
    Listener listener = new Listener();
    String since = Long.toString(clock.instant().minus(OVERLAP).getEpochSecond());
    try (var command = daemon.client().eventsCmd()) {
      command
          .withEventTypeFilter("container")
          .withEventFilter("die", "oom", "destroy")
          .withLabelFilter(Map.of(Labels.DEPLOYMENT, deployment))
          .withSince(since)
          .exec(listener);
      listener.decided.await();
      if (listener.opened) {
        resync();
        LOG.debug("the Docker daemon's events are heard");
        heard.countDown();
        listener.ended.await();
        if (closed.getCount() > 0) {
          LOG.warn("the Docker daemon is away: sandboxes go on, none is made or destroyed");
        }
      }
    } catch (DriverException.Failed e) {
      LOG.warn("{}", e.getMessage());
    } catch (RuntimeException e) {
      LOG.warn("the Docker daemon's events cannot be heard: {}", Command.lastLine(e.toString()));
    } finally {
      listener.close();
    }
    return listener.opened;
  }

  private void resync() throws DriverException.Failed {
    Set<Id> known = new HashSet<>();
    for (Container container : daemon.containers(Deadline.in(ASK), Labels.DEPLOYMENT, deployment)) {
      Optional<Id> sandbox = Labels.sandbox(container.getLabels());
      sandbox.ifPresent(known::add);
      if (!"running".equals(container.getState()) && !"created".equals(container.getState())) {
        sandbox.ifPresent(ended);
      }
    }
    outOfMemory.retainAll(known);
  }

  private final class Listener implements ResultCallback<Event> {
    final CountDownLatch decided = new CountDownLatch(1);
    final CountDownLatch ended = new CountDownLatch(1);
    volatile boolean opened;

    @Override
    public void onStart(Closeable opening) {
      stream = opening;
      opened = true;
      decided.countDown();
      if (closed.getCount() == 0) {
        close();
      }
    }

    @Override
    public void onNext(Event event) {
      if (event.getActor() == null) {
        return;
      }
      Labels.sandbox(event.getActor().getAttributes())
          .ifPresent(sandbox -> {
            switch (String.valueOf(event.getAction())) {
              case "oom" -> outOfMemory.add(sandbox);
              case "destroy" -> {
                outOfMemory.remove(sandbox);
                Events.this.ended.accept(sandbox);
              }
              default -> Events.this.ended.accept(sandbox);
            }
          });
    }

    @Override
    public void onError(Throwable error) {
      LOG.debug("the Docker daemon's events end: {}", error.toString());
      onComplete();
    }

    @Override
    public void onComplete() {
      decided.countDown();
      ended.countDown();
    }

    @Override
    public void close() {
      Closeable opening = stream;
      if (opening != null) {
        try {
          opening.close();
        } catch (IOException e) {
          LOG.debug("closing the stream of events", e);
        }
      }
      onComplete();
    }
  }

  @Override
  public void close() {
    closed.countDown();
    Closeable opening = stream;
    if (opening != null) {
      try {
        opening.close();
      } catch (IOException e) {
        LOG.debug("closing the stream of events", e);
      }
    }
    thread.interrupt();
  }
}
