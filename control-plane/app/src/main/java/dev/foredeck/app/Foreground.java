package dev.foredeck.app;

import java.util.concurrent.CountDownLatch;
import java.util.function.Supplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// A role that runs until it is told to stop, in the terminal or under a supervisor.
final class Foreground {
  private static final Logger LOG = LoggerFactory.getLogger(Foreground.class);

  private Foreground() {}

  /// Starts the role, says on stdout that it serves, and drains it on SIGTERM or SIGINT: then the
  /// process ends, with 0 unless it could not be drained, and this never returns.
  ///
  /// @param role closed also when it is told to stop while it starts
  /// @param start returns the one line for scripts; what it throws is the caller's, unless it was
  ///   told to stop
  static void run(AutoCloseable role, Supplier<String> start) throws InterruptedException {
    // Before anything is made: a start that is told to stop leaves nothing behind either.
    Thread drain = Thread.ofPlatform().name("drain").unstarted(() -> drain(role));
    Runtime.getRuntime().addShutdownHook(drain);
    try {
      System.out.println(start.get());
      System.out.flush();
    } catch (RuntimeException e) {
      if (isLeftAlone(drain)) {
        throw e;
      }
      // Not a fault of the start: it was told to stop.
      LOG.info("the start ends: {}", e.getMessage());
    }
    // The hook ends the process.
    new CountDownLatch(1).await();
  }

  private static void drain(AutoCloseable role) {
    int exitCode = 0;
    try {
      role.close();
    } catch (Exception e) {
      LOG.error("it could not be drained", e);
      exitCode = 1;
    }
    // The JVM's own exit code after SIGTERM is 143; ours says whether draining succeeded.
    Runtime.getRuntime().halt(exitCode);
  }

  /// Whether nobody has told the process to stop; nobody drains from here on.
  private static boolean isLeftAlone(Thread drain) {
    try {
      return Runtime.getRuntime().removeShutdownHook(drain);
    } catch (IllegalStateException _) {
      return false;
    }
  }
}
