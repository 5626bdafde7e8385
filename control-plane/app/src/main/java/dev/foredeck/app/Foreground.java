package dev.foredeck.app;

import java.util.concurrent.CountDownLatch;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// A role that runs until it is told to stop, in the terminal or under a supervisor.
final class Foreground {
  private static final Logger LOG = LoggerFactory.getLogger(Foreground.class);

  private Foreground() {}

  /// Says on stdout that the role serves, and drains it on SIGTERM or SIGINT: then the process ends
  /// with 0, and this never returns.
  ///
  /// @param ready the one line for scripts
  static int run(AutoCloseable role, String ready) throws InterruptedException {
    CountDownLatch stopped = new CountDownLatch(1);
    Runtime.getRuntime()
        .addShutdownHook(
            Thread.ofPlatform()
                .name("drain")
                .unstarted(() -> {
                  try {
                    role.close();
                  } catch (Exception e) {
                    LOG.error("it could not be drained", e);
                  }
                  stopped.countDown();
                  // The JVM's own exit code after SIGTERM is 143; ours says that draining
                  // succeeded.
                  Runtime.getRuntime().halt(0);
                }));
    System.out.println(ready);
    System.out.flush();
    stopped.await();
    return 0;
  }
}
