package dev.foredeck.agent;

import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.HashSet;
import java.util.Set;

/// The processes of one session, found in `/proc`: whatever a call started and did not put into a
/// session of its own.
///
/// A pid that is seen here and ends before it is signalled would have to be given out again within
/// microseconds for the signal to meet a stranger; the stranger would be of the same sandbox.
final class ProcessSession {
  private static final int STAT_BYTES = 512;
  private static final int STOP_SWEEPS = 50;
  private static final int KILL_ROUNDS = 600;
  private static final long ROUND_MILLIS = 50;

  private final File proc;
  private final int session;

  ProcessSession(int session) {
    this(new File("/proc"), session);
  }

  ProcessSession(File proc, int session) {
    this.proc = proc;
    this.session = session;
  }

  /// Pids of the live processes; one that has ended and waits for its parent does not count.
  Set<Integer> members() {
    Set<Integer> members = new HashSet<>();
    String[] names = proc.list();
    if (names == null) {
      return members;
    }
    for (String name : names) {
      int pid = pid(name);
      if (pid > 1 && session(new File(proc, name + "/stat")) == session) {
        members.add(pid);
      }
    }
    return members;
  }

  private static int pid(String name) {
    for (int i = 0; i < name.length(); i++) {
      if (name.charAt(i) < '0' || name.charAt(i) > '9') {
        return 0;
      }
    }
    try {
      return Integer.parseInt(name);
    } catch (NumberFormatException _) {
      return 0;
    }
  }

  /// @return the session in a stat file, or -1 for a process that has ended
  private static int session(File stat) {
    String line;
    try (FileInputStream in = new FileInputStream(stat)) {
      line = new String(in.readNBytes(STAT_BYTES), StandardCharsets.ISO_8859_1);
    } catch (IOException _) {
      return -1;
    }
    // The program's name is in parentheses and may hold some itself: the last one ends it. After it
    // come state, parent, process group, session.
    String[] fields = line.substring(line.lastIndexOf(')') + 1).trim().split(" ", 5);
    if (fields.length < 5 || fields[0].equals("Z") || fields[0].equals("X")) {
      return -1;
    }
    try {
      return Integer.parseInt(fields[3]);
    } catch (NumberFormatException _) {
      return -1;
    }
  }

  /// Signals every member.
  void signal(int signal) throws KernelException {
    for (int pid : members()) {
      kill(pid, signal);
    }
  }

  /// Asks every member to end; one that is stopped has to run to hear it.
  void terminate() throws KernelException {
    signal(Kernel.SIGTERM);
    signal(Kernel.SIGCONT);
  }

  /// Ends every member, also while they fork: first all are stopped, until a sweep meets none that
  /// was not stopped before (stopped ones hold their pids, so their number has an end), then
  /// killed.
  ///
  /// @return whether none is left
  boolean destroy() throws KernelException, InterruptedException {
    for (int round = 0; round < KILL_ROUNDS; round++) {
      Set<Integer> stopped = new HashSet<>();
      boolean grew = true;
      for (int sweep = 0; sweep < STOP_SWEEPS && grew; sweep++) {
        grew = false;
        for (int pid : members()) {
          if (stopped.add(pid)) {
            grew = true;
            kill(pid, Kernel.SIGSTOP);
          }
        }
      }
      if (stopped.isEmpty()) {
        return true;
      }
      for (int pid : stopped) {
        kill(pid, Kernel.SIGKILL);
      }
      if (members().isEmpty()) {
        return true;
      }
      Thread.sleep(Math.min(round, ROUND_MILLIS));
    }
    return false;
  }

  private static void kill(int pid, int signal) throws KernelException {
    try {
      // Gone already is as good as signalled.
      boolean _ = Kernel.kill(pid, signal);
    } catch (KernelException e) {
      if (e.errno() != Errno.EPERM) {
        throw e;
      }
      // A program that changed its user: nothing that the agent may signal.
    }
  }
}
