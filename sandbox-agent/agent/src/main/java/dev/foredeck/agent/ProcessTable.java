package dev.foredeck.agent;

import dev.foredeck.protocol.Limits;
import dev.foredeck.protocol.Message.FailureCode;
import dev.foredeck.protocol.Message.Script;
import dev.foredeck.protocol.Message.StartProcess;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.SequencedSet;
import java.util.Set;
import java.util.concurrent.locks.ReentrantLock;

/// The calls that the agent knows: each is started once, whatever is asked how often.
///
/// Threads: the maps are guarded by `lock`; a process is started outside it, while those who ask
/// for the same call wait at its [CallProcess].
final class ProcessTable {
  private static final String SCRIPTS = "/tmp";
  private static final String DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin";

  /// What all spools share beyond their own blocks: 12 MiB.
  private static final int SHARED_BLOCKS = 768;

  private final ReentrantLock lock = new ReentrantLock();
  private final Map<String, CallProcess> known = new HashMap<>();
  private final SequencedSet<String> released = new LinkedHashSet<>();
  private final Children children;
  private final Pump pump;
  private final Spool.Budget budget = new Spool.Budget(SHARED_BLOCKS);
  private final int devNull;

  ProcessTable(Children children, Pump pump) throws KernelException {
    this.children = children;
    this.pump = pump;
    this.devNull = Kernel.open(Kernel.AT_FDCWD, "/dev/null", Kernel.O_RDWR, 0, 0);
  }

  CallProcess find(String callId) throws FailureException {
    lock.lock();
    try {
      CallProcess call = known.get(callId);
      if (call != null) {
        return call;
      }
      throw released.contains(callId)
          ? alreadyRan(callId)
          : new FailureException(
              FailureCode.UNKNOWN_CALL, "this agent has not started call " + callId);
    } finally {
      lock.unlock();
    }
  }

  private static FailureException alreadyRan(String callId) {
    return new FailureException(
        FailureCode.ALREADY_RAN, "call " + callId + " ran and was released");
  }

  /// The process of the call, started now if it never was. It may still be starting by another
  /// request: whoever uses it waits for that.
  CallProcess start(StartProcess request) throws FailureException {
    CallProcess call;
    lock.lock();
    try {
      CallProcess before = known.get(request.callId());
      if (before != null) {
        return before;
      }
      if (released.contains(request.callId())) {
        throw alreadyRan(request.callId());
      }
      if (known.size() >= Limits.PROCESSES) {
        throw new FailureException(
            FailureCode.LIMIT,
            "the agent keeps " + Limits.PROCESSES + " processes that are not yet released");
      }
      call = new CallProcess(request.callId(), pump, budget);
      known.put(request.callId(), call);
    } finally {
      lock.unlock();
    }
    try {
      start(call, request);
    } catch (FailureException e) {
      // It never ran: the same call may be tried again.
      lock.lock();
      try {
        known.remove(request.callId(), call);
      } finally {
        lock.unlock();
      }
      call.notStarted(e);
      throw e;
    }
    return call;
  }

  /// Forgets a call, and remembers that it is not to be run again.
  void release(String callId) throws InterruptedException {
    CallProcess call;
    lock.lock();
    try {
      call = known.remove(callId);
      released.add(callId);
      if (released.size() > Limits.RELEASED_IDS) {
        released.removeFirst();
      }
    } finally {
      lock.unlock();
    }
    if (call != null) {
      call.release();
      removeScript(callId);
    }
  }

  private void start(CallProcess call, StartProcess request) throws FailureException {
    requireDirectory(request.cwd());
    String program = resolve(request);
    List<String> argv = new ArrayList<>(request.argv());
    if (request.script().isPresent()) {
      argv.add(writeScript(request.callId(), request.script().get()));
    }
    List<String> environment = new ArrayList<>(request.env().size());
    request.env().forEach((name, value) -> environment.add(name + "=" + value));
    boolean running = false;
    try (Descriptors own = new Descriptors()) {
      Kernel.Pipe stdout = own.pipe();
      Kernel.Pipe stderr = own.pipe();
      Kernel.Pipe stdin = request.stdin() ? own.pipe() : null;
      if (stdin != null) {
        Kernel.dontBlock(stdin.writeEnd(), Kernel.O_WRONLY);
      }
      StdinPipe stdinPipe = new StdinPipe(pump, stdin == null ? -1 : stdin.writeEnd());
      long startNanos = System.nanoTime();
      int pid =
          children.start(
              new Kernel.Program(
                  program,
                  argv,
                  environment,
                  request.cwd(),
                  stdin == null ? devNull : stdin.readEnd(),
                  stdout.writeEnd(),
                  stderr.writeEnd()),
              call::exited);
      running = true;
      own.keep(stdout.readEnd());
      own.keep(stderr.readEnd());
      if (stdin != null) {
        own.keep(stdin.writeEnd());
      }
      call.started(
          pid,
          startNanos,
          stdout.readEnd(),
          stderr.readEnd(),
          stdinPipe,
          request.timeoutMillis(),
          request.graceMillis());
    } catch (KernelException e) {
      throw failure(e, program);
    } finally {
      if (!running && request.script().isPresent()) {
        removeScript(request.callId());
      }
    }
  }

  /// Descriptors that are closed at the end, apart from those that somebody else keeps.
  private static final class Descriptors implements AutoCloseable {
    private final Set<Integer> open = new LinkedHashSet<>();

    Kernel.Pipe pipe() throws KernelException {
      Kernel.Pipe pipe = Kernel.pipe();
      open.add(pipe.readEnd());
      open.add(pipe.writeEnd());
      return pipe;
    }

    void keep(int descriptor) {
      open.remove(descriptor);
    }

    @Override
    public void close() {
      open.forEach(Kernel::close);
    }
  }

  private static FailureException failure(KernelException e, String program) {
    return switch (e.errno()) {
      case Errno.ENOENT ->
          new FailureException(
              FailureCode.NOT_EXECUTABLE, program + " or its interpreter does not exist", e);
      case Errno.ENOEXEC ->
          new FailureException(
              FailureCode.NOT_EXECUTABLE,
              program + " is no program of this machine and has no interpreter line (#!)",
              e);
      case Errno.EACCES, Errno.EPERM, Errno.ENOTDIR, Errno.ELOOP, Errno.EISDIR ->
          new FailureException(FailureCode.NOT_EXECUTABLE, program + ": " + e.getMessage(), e);
      case Errno.EAGAIN, Errno.ENOMEM, Errno.EMFILE ->
          new FailureException(
              FailureCode.LIMIT, "no room for another process: " + e.getMessage(), e);
      case Errno.E2BIG ->
          new FailureException(
              FailureCode.BAD_REQUEST, "argv and environment are too long together", e);
      default -> new FailureException(FailureCode.IO, e.getMessage() + ": " + program, e);
    };
  }

  private static void requireDirectory(String cwd) throws FailureException {
    boolean isDirectory;
    try {
      isDirectory = Kernel.statusFollowingLinks(cwd).isDirectory();
    } catch (KernelException e) {
      throw new FailureException(FailureCode.BAD_CWD, e.getMessage() + ": " + cwd, e);
    }
    if (!isDirectory || !Kernel.isExecutable(cwd)) {
      throw new FailureException(FailureCode.BAD_CWD, "not a directory to enter: " + cwd);
    }
  }

  /// Looks the program up in `PATH` of the call's environment: `posix_spawnp` would use the
  /// agent's.
  private static String resolve(StartProcess request) throws FailureException {
    String name = request.argv().getFirst();
    if (name.contains("/")) {
      // As the kernel will see it: relative to cwd, which the child has entered by then.
      return name;
    }
    String path = request.env().getOrDefault("PATH", DEFAULT_PATH);
    List<String> candidates = new ArrayList<>();
    for (String entry : path.split(":", -1)) {
      String directory = entry.startsWith("/") ? entry : request.cwd() + "/" + entry;
      String candidate = directory + "/" + name;
      // In this order: most folders do not have it, and only the second question fails by throwing.
      if (Kernel.isExecutable(candidate) && isFile(candidate)) {
        return candidate;
      }
      candidates.add(candidate);
    }
    throw new FailureException(
        FailureCode.NOT_EXECUTABLE,
        candidates.stream()
            .filter(ProcessTable::isFile)
            .findFirst()
            .map(refused -> refused + " is not executable")
            .orElse("there is no program '" + name + "' in PATH " + path));
  }

  private static boolean isFile(String path) {
    try {
      return Kernel.statusFollowingLinks(path).isFile();
    } catch (KernelException _) {
      return false;
    }
  }

  private static String scriptDirectory(String callId) {
    return ".foredeck-" + callId;
  }

  /// @return the file's path
  private static String writeScript(String callId, Script script) throws FailureException {
    String path = scriptDirectory(callId) + "/main" + script.suffix();
    try (Subtree tmp = Subtree.at(SCRIPTS)) {
      // Fails where somebody else made it before.
      tmp.makePrivateDirectory(scriptDirectory(callId));
      try (Subtree.Writing writing = tmp.write(path, 0600)) {
        writing.append(script.bytes());
        var _ = writing.finish();
      }
    } catch (KernelException e) {
      throw new FailureException(
          e.errno() == Errno.ENOSPC ? FailureCode.DISK_FULL : FailureCode.IO,
          "cannot write the script: " + e.getMessage(),
          e);
    }
    return SCRIPTS + "/" + path;
  }

  private static void removeScript(String callId) {
    try (Subtree tmp = Subtree.at(SCRIPTS)) {
      tmp.remove(scriptDirectory(callId), true);
    } catch (FailureException e) {
      if (e.code() != FailureCode.NOT_FOUND) {
        Log.warn("cannot remove the script of call " + callId, e);
      }
    } catch (KernelException e) {
      Log.warn("cannot remove the script of call " + callId, e);
    }
  }
}
