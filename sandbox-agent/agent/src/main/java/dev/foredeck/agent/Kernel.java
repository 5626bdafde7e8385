package dev.foredeck.agent;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.VarHandle;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// The only class that speaks to the kernel: the C library's functions through the foreign function
/// interface. Text is UTF-8 whatever the locale is.
///
/// Every function is called through one handle of one shape, six integers in and one out: on both
/// supported processors (x86-64, AArch64) integers and addresses travel in registers, a callee
/// ignores registers that it has no parameter for, and reads of an `int` its lower half. A handle
/// per signature would spin classes at start-up for each of them.
///
/// Threads: all methods may be called from any thread. A call that blocks holds its (carrier)
/// thread.
@SuppressWarnings("restricted") // Native calls are what this class is for, and no other has any.
final class Kernel {
  static final int AT_FDCWD = -100;
  static final int O_WRONLY = 1;
  static final int O_RDWR = 2;
  static final int O_CREAT = 0100;
  static final int O_EXCL = 0200;
  static final int O_NOCTTY = 0400;
  static final int O_NONBLOCK = 04000;
  static final int O_CLOEXEC = 02000000;
  static final int O_PATH = 010000000;
  // The two processors disagree on these two.
  private static final boolean ARM = "aarch64".equals(System.getProperty("os.arch"));
  static final int O_DIRECTORY = ARM ? 040000 : 0200000;
  static final int O_NOFOLLOW = ARM ? 0100000 : 0400000;

  static final int RESOLVE_NO_MAGICLINKS = 0x02;
  static final int RESOLVE_NO_SYMLINKS = 0x04;
  static final int RESOLVE_BENEATH = 0x08;

  static final int POLLIN = 1;
  static final int POLLOUT = 4;

  static final int SIGKILL = 9;

  /// In the low byte of a wait status: the child has not exited.
  private static final int STOPPED = 0x7f;

  static final int SIGTERM = 15;
  static final int SIGCHLD = 17;
  static final int SIGCONT = 18;
  static final int SIGSTOP = 19;

  static final int RLIMIT_FSIZE = 1;
  static final int RLIMIT_CORE = 4;
  static final int RLIMIT_NPROC = 6;

  private static final int PR_SET_DUMPABLE = 4;
  private static final int PR_SET_CHILD_SUBREAPER = 36;
  private static final int SYS_OPENAT2 = 437;
  private static final int F_SETFL = 4;
  private static final int AT_SYMLINK_NOFOLLOW = 0x100;
  private static final int AT_REMOVEDIR = 0x200;
  private static final int AT_EACCESS = 0x200;
  private static final int AT_EMPTY_PATH = 0x1000;
  private static final int X_OK = 1;
  private static final int STATX_BASIC_STATS = 0x7ff;
  private static final int STATX_BYTES = 256;
  private static final int RUSAGE_BYTES = 144;
  private static final int SIGINFO_BYTES = 128;
  private static final int WEXITED = 4;
  private static final int WNOWAIT = 0x01000000;
  private static final int WNOHANG = 1;
  private static final int SPAWN_SETSIGDEF = 0x04;
  private static final int SPAWN_SETSIGMASK = 0x08;
  private static final int SPAWN_SETSID = 0x80;
  // Larger than glibc's (336 and 80 bytes) on purpose.
  private static final int SPAWN_ATTRIBUTES_BYTES = 512;
  private static final int SPAWN_ACTIONS_BYTES = 256;
  private static final int SIGSET_BYTES = 128;

  private static final Linker LINKER = Linker.nativeLinker();
  private static final MemoryLayout STATE = Linker.Option.captureStateLayout();
  private static final VarHandle ERRNO =
      STATE.varHandle(MemoryLayout.PathElement.groupElement("errno"));
  private static final MethodHandle CALL =
      LINKER.downcallHandle(
          FunctionDescriptor.of(
              JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG),
          Linker.Option.captureCallState("errno"));

  private static final MemorySegment PRCTL = function("prctl");
  private static final MemorySegment PRLIMIT = function("prlimit64");
  private static final MemorySegment SIGNAL = function("signal");
  private static final MemorySegment SYSCALL = function("syscall");
  private static final MemorySegment FCNTL = function("fcntl");
  private static final MemorySegment PIPE2 = function("pipe2");
  private static final MemorySegment CLOSE = function("close");
  private static final MemorySegment READ = function("read");
  private static final MemorySegment PREAD = function("pread");
  private static final MemorySegment WRITE = function("write");
  private static final MemorySegment POLL = function("poll");
  private static final MemorySegment KILL = function("kill");
  private static final MemorySegment WAITID = function("waitid");
  private static final MemorySegment WAIT4 = function("wait4");
  private static final MemorySegment STATX = function("statx");
  private static final MemorySegment FACCESSAT = function("faccessat");
  private static final MemorySegment MKDIRAT = function("mkdirat");
  private static final MemorySegment RENAMEAT = function("renameat");
  private static final MemorySegment UNLINKAT = function("unlinkat");
  private static final MemorySegment FCHMOD = function("fchmod");
  private static final MemorySegment GETDENTS = function("getdents64");
  private static final MemorySegment LSEEK = function("lseek");
  private static final MemorySegment STRERROR = function("strerror");
  private static final MemorySegment SPAWN = function("posix_spawn");
  private static final MemorySegment ACTIONS_INIT = function("posix_spawn_file_actions_init");
  private static final MemorySegment ACTIONS_DESTROY = function("posix_spawn_file_actions_destroy");
  private static final MemorySegment ACTIONS_DUP2 = function("posix_spawn_file_actions_adddup2");
  private static final MemorySegment ACTIONS_CHDIR =
      function("posix_spawn_file_actions_addchdir_np");
  private static final MemorySegment ACTIONS_CLOSEFROM =
      function("posix_spawn_file_actions_addclosefrom_np");
  private static final MemorySegment ATTRIBUTES_INIT = function("posix_spawnattr_init");
  private static final MemorySegment ATTRIBUTES_DESTROY = function("posix_spawnattr_destroy");
  private static final MemorySegment ATTRIBUTES_FLAGS = function("posix_spawnattr_setflags");
  private static final MemorySegment ATTRIBUTES_SIGDEFAULT =
      function("posix_spawnattr_setsigdefault");
  private static final MemorySegment ATTRIBUTES_SIGMASK = function("posix_spawnattr_setsigmask");

  private Kernel() {}

  private static MemorySegment function(String name) {
    return LINKER
        .defaultLookup()
        .find(name)
        .orElseThrow(() ->
            new UnsupportedOperationException(
                "the C library has no " + name + ": glibc 2.34 or newer is needed"));
  }

  /// What came back: the result, and `errno` where the function says that it failed.
  private record Result(long value, int errno) {
    int number() {
      return (int) value;
    }
  }

  private static Result call(
      Arena arena, MemorySegment function, long a, long b, long c, long d, long e, long f) {
    MemorySegment state = arena.allocate(STATE);
    try {
      long value = (long) CALL.invokeExact(function, state, a, b, c, d, e, f);
      return new Result(value, (int) ERRNO.get(state, 0L));
    } catch (RuntimeException | Error failed) {
      throw failed;
    } catch (Throwable impossible) {
      throw new IllegalStateException(impossible);
    }
  }

  private static Result call(Arena arena, MemorySegment function, long a, long b, long c, long d) {
    return call(arena, function, a, b, c, d, 0, 0);
  }

  private static int check(String name, Result result) throws KernelException {
    if (result.number() < 0) {
      throw failure(name, result.errno());
    }
    return result.number();
  }

  static KernelException failure(String name, int errno) {
    return new KernelException(name, errno, text(errno));
  }

  /// The C library's words for an error number.
  static String text(int errno) {
    try (Arena arena = Arena.ofConfined()) {
      long address = call(arena, STRERROR, errno, 0, 0, 0).value();
      return MemorySegment.ofAddress(address).reinterpret(256).getString(0);
    }
  }

  private static MemorySegment string(Arena arena, String text) {
    return arena.allocateFrom(text, StandardCharsets.UTF_8);
  }

  // The agent itself.

  /// Keeps other processes of the same user from reading this one's memory, environment and
  /// descriptors, and from attaching to it.
  static void hide() throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      check("prctl", call(arena, PRCTL, PR_SET_DUMPABLE, 0, 0, 0));
    }
  }

  /// Makes orphans children of this process even where it is not process 1, and keeps their exit
  /// status even where the parent ignored SIGCHLD.
  static void adoptOrphans() throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      check("prctl", call(arena, PRCTL, PR_SET_CHILD_SUBREAPER, 1, 0, 0));
      call(arena, SIGNAL, SIGCHLD, 0, 0, 0);
    }
  }

  /// A soft and a hard limit; -1 is no limit.
  record ResourceLimit(long soft, long hard) {}

  /// @param pid 0 for the agent itself
  static ResourceLimit limit(int pid, int resource) throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment limit = arena.allocate(16, 8);
      check("prlimit", call(arena, PRLIMIT, pid, resource, 0, limit.address()));
      return new ResourceLimit(limit.get(JAVA_LONG, 0), limit.get(JAVA_LONG, 8));
    }
  }

  /// @param pid 0 for the agent itself
  static void setLimit(int pid, int resource, ResourceLimit value) throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment limit = arena.allocate(16, 8);
      limit.set(JAVA_LONG, 0, value.soft());
      limit.set(JAVA_LONG, 8, value.hard());
      check("prlimit", call(arena, PRLIMIT, pid, resource, limit.address(), 0));
    }
  }

  // Descriptors.

  /// Two ends of a pipe; neither is inherited by a child unless it is given on purpose.
  record Pipe(int readEnd, int writeEnd) {}

  static Pipe pipe() throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment ends = arena.allocate(8, 4);
      check("pipe", call(arena, PIPE2, ends.address(), O_CLOEXEC, 0, 0));
      return new Pipe(ends.get(JAVA_INT, 0), ends.get(JAVA_INT, 4));
    }
  }

  static void dontBlock(int descriptor, int accessMode) throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      check("fcntl", call(arena, FCNTL, descriptor, F_SETFL, accessMode | O_NONBLOCK, 0));
    }
  }

  static void close(int descriptor) {
    try (Arena arena = Arena.ofConfined()) {
      // Linux frees the descriptor whatever close answers.
      call(arena, CLOSE, descriptor, 0, 0, 0);
    }
  }

  /// @return bytes read, 0 at the end
  static int read(int descriptor, MemorySegment into, long bytes) throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      while (true) {
        Result result = call(arena, READ, descriptor, into.address(), bytes, 0);
        if (result.value() >= 0 || result.errno() != Errno.EINTR) {
          return check("read", result);
        }
      }
    }
  }

  /// @return bytes read, 0 at the end
  static int read(int descriptor, MemorySegment into, long bytes, long offset)
      throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      while (true) {
        Result result = call(arena, PREAD, descriptor, into.address(), bytes, offset);
        if (result.value() >= 0 || result.errno() != Errno.EINTR) {
          return check("read", result);
        }
      }
    }
  }

  /// @return bytes written, at least 1 for a non-empty request
  static int write(int descriptor, MemorySegment from, long bytes) throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      while (true) {
        Result result = call(arena, WRITE, descriptor, from.address(), bytes, 0);
        if (result.value() >= 0 || result.errno() != Errno.EINTR) {
          return check("write", result);
        }
      }
    }
  }

  /// Writes all of it, to a descriptor that blocks.
  static void writeAll(int descriptor, byte[] bytes) throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment copy = arena.allocate(Math.max(1, bytes.length));
      MemorySegment.copy(bytes, 0, copy, JAVA_BYTE, 0, bytes.length);
      for (int done = 0; done < bytes.length; ) {
        done += write(descriptor, copy.asSlice(done), bytes.length - done);
      }
    }
  }

  /// A set of descriptors to wait for, reused from wait to wait by one thread.
  static final class PollSet {
    private static final int ENTRY_BYTES = 8;
    private final MemorySegment entries;
    private final int capacity;
    private int size;

    PollSet(Arena arena, int capacity) {
      this.entries = arena.allocate((long) capacity * ENTRY_BYTES, 4);
      this.capacity = capacity;
    }

    void clear() {
      size = 0;
    }

    /// @return the entry's index, for [#ready]
    int add(int descriptor, int events) {
      if (size == capacity) {
        throw new IllegalStateException("more than " + capacity + " descriptors to wait for");
      }
      long at = (long) size * ENTRY_BYTES;
      entries.set(JAVA_INT, at, descriptor);
      entries.set(JAVA_SHORT, at + 4, (short) events);
      entries.set(JAVA_SHORT, at + 6, (short) 0);
      return size++;
    }

    boolean ready(int index) {
      return entries.get(JAVA_SHORT, (long) index * ENTRY_BYTES + 6) != 0;
    }

    /// @param millis -1 waits without limit
    void await(int millis) throws KernelException {
      try (Arena arena = Arena.ofConfined()) {
        Result result = call(arena, POLL, entries.address(), size, millis, 0);
        if (result.number() < 0 && result.errno() != Errno.EINTR) {
          throw failure("poll", result.errno());
        }
      }
    }
  }

  // Processes.

  /// What a process is made of. Descriptors 0, 1 and 2 become copies of the three given; no other
  /// descriptor reaches it.
  record Program(
      String path,
      List<String> argv,
      List<String> environment,
      String cwd,
      int stdin,
      int stdout,
      int stderr) {}

  /// Starts a process in a session of its own, with every signal at its default and none blocked.
  ///
  /// @return its pid, once the program has replaced the agent's image
  /// @throws KernelException when it could not be started, `ENOENT` too for a missing `cwd`
  static int spawn(Program program) throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment actions = arena.allocate(SPAWN_ACTIONS_BYTES, 16);
      MemorySegment attributes = arena.allocate(SPAWN_ATTRIBUTES_BYTES, 16);
      succeed(call(arena, ACTIONS_INIT, actions.address(), 0, 0, 0));
      try {
        succeed(call(arena, ATTRIBUTES_INIT, attributes.address(), 0, 0, 0));
        try {
          succeed(call(arena, ACTIONS_DUP2, actions.address(), program.stdin(), 0, 0));
          succeed(call(arena, ACTIONS_DUP2, actions.address(), program.stdout(), 1, 0));
          succeed(call(arena, ACTIONS_DUP2, actions.address(), program.stderr(), 2, 0));
          MemorySegment cwd = string(arena, program.cwd());
          succeed(call(arena, ACTIONS_CHDIR, actions.address(), cwd.address(), 0, 0));
          // The JDK opens sockets without close-on-exec: the child closes whatever there is.
          succeed(call(arena, ACTIONS_CLOSEFROM, actions.address(), 3, 0, 0));

          MemorySegment none = arena.allocate(SIGSET_BYTES, 8);
          MemorySegment all = arena.allocate(SIGSET_BYTES, 8).fill((byte) 0xff);
          long attributesAt = attributes.address();
          succeed(call(arena, ATTRIBUTES_SIGMASK, attributesAt, none.address(), 0, 0));
          succeed(call(arena, ATTRIBUTES_SIGDEFAULT, attributesAt, all.address(), 0, 0));
          int flags = SPAWN_SETSID | SPAWN_SETSIGDEF | SPAWN_SETSIGMASK;
          succeed(call(arena, ATTRIBUTES_FLAGS, attributesAt, flags, 0, 0));

          MemorySegment pid = arena.allocate(JAVA_INT);
          succeed(
              call(
                  arena,
                  SPAWN,
                  pid.address(),
                  string(arena, program.path()).address(),
                  actions.address(),
                  attributes.address(),
                  strings(arena, program.argv()).address(),
                  strings(arena, program.environment()).address()));
          return pid.get(JAVA_INT, 0);
        } finally {
          call(arena, ATTRIBUTES_DESTROY, attributes.address(), 0, 0, 0);
        }
      } finally {
        call(arena, ACTIONS_DESTROY, actions.address(), 0, 0, 0);
      }
    }
  }

  /// The `posix_spawn` family answers with the error number itself.
  private static void succeed(Result result) throws KernelException {
    if (result.number() != 0) {
      throw failure("posix_spawn", result.number());
    }
  }

  private static MemorySegment strings(Arena arena, List<String> texts) {
    MemorySegment array = arena.allocate(JAVA_LONG, texts.size() + 1L);
    for (int i = 0; i < texts.size(); i++) {
      array.setAtIndex(JAVA_LONG, i, string(arena, texts.get(i)).address());
    }
    return array;
  }

  /// @return false when there is no such process
  static boolean kill(int pid, int signal) throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      Result result = call(arena, KILL, pid, signal, 0, 0);
      if (result.number() < 0 && result.errno() == Errno.ESRCH) {
        return false;
      }
      check("kill", result);
      return true;
    }
  }

  /// Waits for any child to exit, and leaves it there to be collected with [#collect]: until then
  /// its pid is not given to another process.
  ///
  /// @return its pid, or 0 when there are no children
  static int awaitExit() throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment info = arena.allocate(SIGINFO_BYTES, 8);
      while (true) {
        Result result = call(arena, WAITID, 0, 0, info.address(), WEXITED | WNOWAIT);
        if (result.number() == 0) {
          return info.get(JAVA_INT, 16);
        }
        if (result.errno() == Errno.ECHILD) {
          return 0;
        }
        if (result.errno() != Errno.EINTR) {
          throw failure("waitid", result.errno());
        }
      }
    }
  }

  /// How a process ended and what it used, together with the children that it waited for.
  ///
  /// @param signal that ended it, or 0
  record Exit(int code, int signal, long cpuMicros, long peakMemoryBytes) {}

  /// Collects an exited child. One that asked to be traced by us, who trace nobody, and then met a
  /// signal, stands still for ever and is no exited one: it is killed.
  ///
  /// @return null when the pid is no exited child
  static @Nullable Exit collect(int pid) throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment status = arena.allocate(JAVA_INT);
      MemorySegment usage = arena.allocate(RUSAGE_BYTES, 8);
      Result result = call(arena, WAIT4, pid, status.address(), WNOHANG, usage.address());
      if (result.number() < 0 && result.errno() != Errno.ECHILD) {
        throw failure("wait4", result.errno());
      }
      if (result.number() <= 0) {
        return null;
      }
      int word = status.get(JAVA_INT, 0);
      if ((word & 0xff) == STOPPED) {
        kill(pid, SIGKILL);
        return null;
      }
      int signal = word & 0x7f;
      long seconds = usage.get(JAVA_LONG, 0) + usage.get(JAVA_LONG, 16);
      long micros = usage.get(JAVA_LONG, 8) + usage.get(JAVA_LONG, 24);
      return new Exit(
          signal == 0 ? (word >> 8) & 0xff : 0,
          signal,
          seconds * 1_000_000 + micros,
          usage.get(JAVA_LONG, 32) * 1024);
    }
  }

  // Files. `directory` is a descriptor or AT_FDCWD; names are relative to it.

  /// @param resolve `RESOLVE_` flags that the path must keep, or 0
  static int open(int directory, String path, int flags, int mode, int resolve)
      throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment how = arena.allocate(24, 8);
      how.set(JAVA_LONG, 0, flags | O_CLOEXEC);
      how.set(JAVA_LONG, 8, mode);
      how.set(JAVA_LONG, 16, resolve);
      MemorySegment name = string(arena, path);
      // The kernel answers EAGAIN when a rename elsewhere raced with a guarded resolution.
      for (int attempt = 0; ; attempt++) {
        Result result =
            call(arena, SYSCALL, SYS_OPENAT2, directory, name.address(), how.address(), 24, 0);
        boolean again =
            result.number() < 0
                && (result.errno() == Errno.EAGAIN || result.errno() == Errno.EINTR)
                && attempt < 100;
        if (!again) {
          return check("open", result);
        }
      }
    }
  }

  /// What a name or a descriptor stands for.
  record Status(int typeAndMode, long sizeBytes, long modifiedMillis) {
    private static final int TYPE = 0170000;

    boolean isDirectory() {
      return (typeAndMode & TYPE) == 0040000;
    }

    boolean isFile() {
      return (typeAndMode & TYPE) == 0100000;
    }

    boolean isLink() {
      return (typeAndMode & TYPE) == 0120000;
    }

    int mode() {
      return typeAndMode & 07777;
    }
  }

  /// Does not follow a link at the end of `path`. An empty `path` is `directory` itself.
  static Status status(int directory, String path) throws KernelException {
    return status(directory, path, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH);
  }

  static Status statusFollowingLinks(String path) throws KernelException {
    return status(AT_FDCWD, path, 0);
  }

  private static Status status(int directory, String path, int flags) throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment buffer = arena.allocate(STATX_BYTES, 8);
      check(
          "stat",
          call(
              arena,
              STATX,
              directory,
              string(arena, path).address(),
              flags,
              STATX_BASIC_STATS,
              buffer.address(),
              0));
      return new Status(
          Short.toUnsignedInt(buffer.get(JAVA_SHORT, 28)),
          buffer.get(JAVA_LONG, 40),
          buffer.get(JAVA_LONG, 112) * 1000 + buffer.get(JAVA_INT, 120) / 1_000_000);
    }
  }

  /// Whether this process may execute the file; follows links.
  static boolean isExecutable(String path) {
    try (Arena arena = Arena.ofConfined()) {
      long name = string(arena, path).address();
      return call(arena, FACCESSAT, AT_FDCWD, name, X_OK, AT_EACCESS).number() == 0;
    }
  }

  static void makeDirectory(int directory, String name, int mode) throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      check("mkdir", call(arena, MKDIRAT, directory, string(arena, name).address(), mode, 0));
    }
  }

  static void rename(int fromDirectory, String from, int toDirectory, String to)
      throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      long source = string(arena, from).address();
      long target = string(arena, to).address();
      check("rename", call(arena, RENAMEAT, fromDirectory, source, toDirectory, target));
    }
  }

  static void remove(int directory, String name, boolean isDirectory) throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      int flags = isDirectory ? AT_REMOVEDIR : 0;
      check("unlink", call(arena, UNLINKAT, directory, string(arena, name).address(), flags, 0));
    }
  }

  static void setMode(int descriptor, int mode) throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      check("chmod", call(arena, FCHMOD, descriptor, mode, 0, 0));
    }
  }

  static void rewind(int descriptor) throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      check("lseek", call(arena, LSEEK, descriptor, 0, 0, 0));
    }
  }

  /// Reads the next names of a directory into `buffer`; `.` and `..` are left out.
  ///
  /// @return how many bytes were filled, 0 at the end
  static int readDirectory(int directory, MemorySegment buffer, List<String> names)
      throws KernelException {
    try (Arena arena = Arena.ofConfined()) {
      int bytes =
          check(
              "readdir", call(arena, GETDENTS, directory, buffer.address(), buffer.byteSize(), 0));
      for (int at = 0; at < bytes; ) {
        int length = Short.toUnsignedInt(buffer.get(JAVA_SHORT, at + 16L));
        String name = buffer.getString(at + 19L, StandardCharsets.UTF_8);
        if (!name.equals(".") && !name.equals("..")) {
          names.add(name);
        }
        at += length;
      }
      return bytes;
    }
  }
}
