package dev.foredeck.agent;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/// Starts children and collects every process that ends in the sandbox, orphans included, so that
/// no zombie remains.
///
/// Threads: one reaper runs [#reap]; anyone starts. Invariant: a pid is collected only under the
/// lock, and a started pid is entered under the same hold of the lock, so that an exit always meets
/// the process that it belongs to.
final class Children {
  /// Pids that the workload cannot take from the agent.
  private static final int HEADROOM = 32;

  /// How long the reaper rests where there is no child. Not only our own children become ours: a
  /// process that a driver puts into the sandbox leaves its orphans here too.
  private static final long REST_NANOS = TimeUnit.SECONDS.toNanos(1);

  private static final byte[] OOM_SCORE = "500".getBytes(StandardCharsets.US_ASCII);

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition started = lock.newCondition();
  private final Map<Integer, Consumer<Kernel.Exit>> running = new HashMap<>();
  private final Kernel.@Nullable ResourceLimit childLimit;

  /// @param pids the sandbox's limit of processes; 0 when it is not known
  Children(int pids) throws KernelException {
    Kernel.setLimit(0, Kernel.RLIMIT_CORE, new Kernel.ResourceLimit(0, 0));
    if (pids > HEADROOM) {
      long most = (long) pids - HEADROOM;
      long hard = Kernel.limit(0, Kernel.RLIMIT_NPROC).hard();
      // As unsigned numbers: no limit is -1.
      long child = Long.compareUnsigned(hard, most) < 0 ? hard : most;
      this.childLimit = new Kernel.ResourceLimit(child, child);
    } else {
      this.childLimit = null;
    }
  }

  /// Lowers this process's own limits, for good, to the sandbox's: what it starts can then never
  /// have more. Processes count by user, so that user must be this sandbox's alone.
  static void holdTo(Settings settings) throws KernelException {
    lower(Kernel.RLIMIT_NPROC, settings.pids());
    lower(Kernel.RLIMIT_FSIZE, settings.fileBytes());
  }

  private static void lower(int resource, long most) throws KernelException {
    // As unsigned numbers: no limit is -1.
    if (most > 0 && Long.compareUnsigned(Kernel.limit(0, resource).hard(), most) > 0) {
      Kernel.setLimit(0, resource, new Kernel.ResourceLimit(most, most));
    }
  }

  /// Starts a program.
  ///
  /// @param onExit called once, by the reaper, without a lock
  /// @return the pid, which is its session's id too
  int start(Kernel.Program program, Consumer<Kernel.Exit> onExit) throws KernelException {
    lock.lock();
    try {
      int pid = childLimit == null ? Kernel.spawn(program) : spawnLimited(program, childLimit);
      running.put(pid, onExit);
      offerToOomKiller(pid);
      started.signal();
      return pid;
    } finally {
      lock.unlock();
    }
  }

  /// A child inherits the soft limit with which the agent starts it. That it could raise it again
  /// before its hard limit is lowered, and then take the headroom, is a race that only harms its
  /// own sandbox: the limit of [#holdTo] holds in any case.
  private static int spawnLimited(Kernel.Program program, Kernel.ResourceLimit limit)
      throws KernelException {
    Kernel.ResourceLimit own = Kernel.limit(0, Kernel.RLIMIT_NPROC);
    Kernel.setLimit(0, Kernel.RLIMIT_NPROC, new Kernel.ResourceLimit(limit.soft(), own.hard()));
    int pid;
    try {
      pid = Kernel.spawn(program);
    } finally {
      Kernel.setLimit(0, Kernel.RLIMIT_NPROC, own);
    }
    try {
      Kernel.setLimit(pid, Kernel.RLIMIT_NPROC, limit);
    } catch (KernelException e) {
      if (e.errno() != Errno.ESRCH && e.errno() != Errno.EPERM) {
        throw e;
      }
      // Already gone, or privileged by its file: there the soft limit has to do.
    }
    return pid;
  }

  /// When memory runs out, the kernel shall end the workload and not the agent.
  private static void offerToOomKiller(int pid) {
    try {
      int file =
          Kernel.open(Kernel.AT_FDCWD, "/proc/" + pid + "/oom_score_adj", Kernel.O_WRONLY, 0, 0);
      try {
        Kernel.writeAll(file, OOM_SCORE);
      } finally {
        Kernel.close(file);
      }
    } catch (KernelException _) {
      // The child is gone already, or /proc is not writable: a preference is not worth a failure.
    }
  }

  /// Collects children for ever.
  void reap() {
    while (true) {
      try {
        int pid = Kernel.awaitExit();
        if (pid == 0) {
          rest();
        } else {
          collect(pid);
        }
      } catch (IOException e) {
        throw new IllegalStateException("cannot wait for children", e);
      } catch (InterruptedException _) {
        return;
      }
    }
  }

  private void rest() throws InterruptedException {
    lock.lock();
    try {
      long left = REST_NANOS;
      while (running.isEmpty() && left > 0) {
        left = started.awaitNanos(left);
      }
    } finally {
      lock.unlock();
    }
  }

  private void collect(int pid) throws KernelException {
    Kernel.Exit exit;
    Consumer<Kernel.Exit> onExit;
    lock.lock();
    try {
      exit = Kernel.collect(pid);
      onExit = exit == null ? null : running.remove(pid);
    } finally {
      lock.unlock();
    }
    if (exit != null && onExit != null) {
      onExit.accept(exit);
    }
  }
}
