package dev.foredeck.core.kit;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.Supplier;

/// The life of one control plane, which ends at the chosen point: from then on nothing that it
/// tries has an effect.
public final class Mortality implements Fault {
  /// An error, because nothing in the control plane may catch its own death.
  public static final class Crash extends Error {
    private static final long serialVersionUID = 1L;

    Crash() {
      super("the control plane is dead", null, false, false);
    }
  }

  /// When to die.
  ///
  /// @param point at which kind of point; empty for any
  /// @param count at which of them, from 1; 0 for never
  public record Fate(String point, long count) {
    public static final Fate LIVE = new Fate("", 0);
  }

  private final Fate fate;
  private final AtomicLong met = new AtomicLong();
  private final Map<String, Boolean> points;
  private final CountDownLatch died = new CountDownLatch(1);
  private final ReentrantReadWriteLock inWork = new ReentrantReadWriteLock();
  private volatile boolean dead;
  private volatile Runnable onDeath = () -> {};

  /// @param points collects at which kinds of points control planes died
  public Mortality(Fate fate, Map<String, Boolean> points) {
    this.fate = fate;
    this.points = points;
  }

  public static Map<String, Boolean> points() {
    return new ConcurrentHashMap<>();
  }

  public void onDeath(Runnable action) {
    onDeath = action;
  }

  @Override
  public void at(String point) {
    check();
    if (fate.count() > 0
        && (fate.point().isEmpty() || fate.point().equals(point))
        && met.incrementAndGet() == fate.count()) {
      points.put(point, true);
      die();
      throw new Crash();
    }
  }

  public void die() {
    dead = true;
    onDeath.run();
    died.countDown();
  }

  public void check() {
    if (dead) {
      throw new Crash();
    }
  }

  public boolean dead() {
    return dead;
  }

  /// Something that a crash leaves done or not done, apart from the points inside of it.
  <T> T undivided(Supplier<T> work) {
    inWork.readLock().lock();
    try {
      check();
      return work.get();
    } finally {
      inWork.readLock().unlock();
    }
  }

  /// Blocks until the control plane is dead and nothing of it is in work any more.
  public void awaitDeath() throws InterruptedException {
    died.await();
    inWork.writeLock().lock();
    try {
      // To get it was all.
    } finally {
      inWork.writeLock().unlock();
    }
  }
}
