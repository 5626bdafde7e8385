package dev.foredeck.agent;

import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.Message;
import java.util.Locale;

/// Process 1 of a sandbox. See [Settings] for what it needs.
public final class Agent {
  static final String VERSION = "0.1.0";

  private static final int STACK_BYTES = 256 * 1024;

  /// Without a request for so long, the sandbox is one that waits for somebody.
  private static final long IDLE_MILLIS = 300;

  private static final int EXIT_SETTINGS = 64;
  private static final int EXIT_BUG = 70;

  private Agent() {}

  /// Runs until the sandbox is destroyed.
  public static void main(String[] args) throws Exception {
    // First of all, while nothing of the workload runs: it is of the same user.
    Kernel.hide();
    Thread.setDefaultUncaughtExceptionHandler((thread, e) -> fail(thread.getName(), e));
    Settings settings;
    try {
      settings = Settings.from(System.getenv());
    } catch (IllegalArgumentException e) {
      Log.warn(String.valueOf(e.getMessage()));
      System.exit(EXIT_SETTINGS);
      return;
    }
    Children.holdTo(settings);
    run(settings);
  }

  static void run(Settings settings) throws Exception {
    Kernel.adoptOrphans();
    Children children = new Children(settings.pids());
    Pump pump = new Pump();
    Requests requests =
        new Requests(new ProcessTable(children, pump), Subtree.at(settings.workspace()));
    start("reaper", children::reap);
    start("pump", pump);
    Rehearsal rehearsal = new Rehearsal(requests);
    switch (settings.reach()) {
      case Settings.Reach.Dial dial -> {
        dial.egressSocket().ifPresent(socket -> bridge(settings, GatewayDialler.unix(socket)));
        Greeter greeter = new Greeter(greeting(dial.token()), requests);
        UnixDialler dialler = new UnixDialler(dial.controlSocket());
        start("rehearsal", () -> rehearse(greeter, rehearsal));
        // Two spare connections: a request that follows another at once need not wait for a
        // greeting.
        start("greeter", () -> untilInterrupted(() -> greeter.dial(dialler)));
        greeter.dial(dialler);
      }
      case Settings.Reach.Listen listen -> {
        GatewayDialler.Pinned gateway = new GatewayDialler.Pinned(listen.pin());
        bridge(settings, gateway);
        Greeter greeter = new Greeter(greeting(""), requests);
        start("rehearsal", () -> rehearse(greeter, rehearsal));
        new Listener(listen, greeter, gateway).run();
      }
    }
  }

  /// Only where nobody waits for the agent: a sandbox that is made for a call gets it at once.
  private static void rehearse(Greeter greeter, Rehearsal rehearsal) {
    untilInterrupted(() -> {
      if (!greeter.awaitRequest(IDLE_MILLIS)) {
        rehearsal.run();
      }
    });
  }

  private static void bridge(Settings settings, GatewayDialler gateway) {
    Bridge bridge = new Bridge(settings.bridgePort(), gateway);
    start("bridge", () -> untilInterrupted(bridge::run));
  }

  private static Message.Greeting greeting(String token) {
    // Names this life of the agent: the start in nanoseconds of two clocks.
    String bootId =
        String.format(Locale.ROOT, "%x-%x", System.currentTimeMillis(), System.nanoTime());
    return new Message.Greeting(Limits.PROTOCOL_MIN, Limits.PROTOCOL_MAX, bootId, token, VERSION);
  }

  private interface Task {
    void run() throws InterruptedException;
  }

  private static void untilInterrupted(Task task) {
    try {
      task.run();
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    }
  }

  private static void start(String name, Runnable task) {
    Thread.ofPlatform().name(name).stackSize(STACK_BYTES).daemon().start(task);
  }

  /// An agent that has lost one of its own threads only looks alive: better that its processes end
  /// and the control plane sees it. A virtual thread serves one call.
  private static void fail(String thread, Throwable cause) {
    Log.warn("thread " + thread + " ended", cause);
    for (StackTraceElement line : cause.getStackTrace()) {
      Log.warn("  at " + line);
    }
    if (!Thread.currentThread().isVirtual()) {
      Runtime.getRuntime().halt(EXIT_BUG);
    }
  }
}
